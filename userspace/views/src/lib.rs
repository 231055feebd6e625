//! The model as text, JSON, YAML, DOT, Mermaid and SVG. No IO.
#![forbid(unsafe_code)]
