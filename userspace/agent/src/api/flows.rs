//! Tracked flows. Flow: observe.
