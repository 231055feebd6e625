//! The picture is valid, and keeps what its layout promises.

use insta::assert_snapshot;
use unicode_width::UnicodeWidthStr as _;

use super::{
    layout::{Arrow, Drawing, FONT_SIZE, Frame, Text},
    render,
};
use crate::{fixtures, picture::Picture};

fn svg(trace: &netdiag_model::trace::Trace) -> String {
    let mut out = Vec::new();
    render(trace, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_picture_is_valid_xml_that_says_the_answer() {
    for (name, fixture) in fixtures::traces() {
        let picture = svg(&fixture);
        let document = roxmltree::Document::parse(&picture).unwrap_or_else(|error| panic!("{name}: {error}"));
        let names: Vec<&str> = document.descendants().map(|node| node.tag_name().name()).collect();
        assert!(names.contains(&"desc") && names.contains(&"polyline"), "{name}");
        assert!(!names.contains(&"script"), "{name}");
    }
}

#[test]
fn every_picture_as_it_is() {
    for (name, fixture) in fixtures::traces() {
        assert_snapshot!(format!("{name}_svg"), svg(&fixture));
    }
}

#[test]
fn text_stays_in_its_box_and_boxes_in_their_column_and_columns_in_the_picture() {
    for (name, fixture) in fixtures::traces() {
        let picture = Picture::of(&fixture);
        let drawing = Drawing::of(&picture);
        let whole = Frame { x: 0, y: 0, width: drawing.width, height: drawing.height };
        for text in drawing.heading.iter().chain(drawing.bands.iter().flat_map(|band| &band.title)) {
            assert!(inside(&room(text), &whole), "{name}: {text:?}");
        }
        for column in drawing.bands.iter().flat_map(|band| &band.columns) {
            assert!(inside(&column.frame, &whole), "{name}: {:?}", column.frame);
            assert!(column.label.iter().all(|text| inside(&room(text), &column.frame)), "{name}");
            for hop in &column.boxes {
                assert!(inside(&hop.frame, &column.frame), "{name}: {:?}", hop.frame);
                for text in &hop.texts {
                    assert!(inside(&room(text), &hop.frame), "{name}: {text:?} {:?}", hop.frame);
                }
            }
        }
    }
}

#[test]
fn no_arrow_crosses_text() {
    for (name, fixture) in fixtures::traces() {
        let picture = Picture::of(&fixture);
        let drawing = Drawing::of(&picture);
        let mut texts: Vec<&Text> = drawing.heading.iter().collect();
        for band in &drawing.bands {
            texts.extend(&band.title);
            for column in &band.columns {
                texts.extend(&column.label);
                texts.extend(column.boxes.iter().flat_map(|hop| &hop.texts));
            }
        }
        let arrows = drawing.bands.iter().flat_map(|band| &band.arrows);
        for piece in arrows.flat_map(pieces) {
            for text in &texts {
                assert!(!touch(&piece, &room(text)), "{name}: {piece:?} crosses {text:?}");
            }
        }
    }
}

#[test]
fn every_hop_but_the_last_of_a_direction_has_an_arrow() {
    let trace = fixtures::healthy();
    let picture = Picture::of(&trace);
    let drawing = Drawing::of(&picture);
    let arrows: Vec<usize> = drawing.bands.iter().map(|band| band.arrows.len()).collect();
    assert_eq!(arrows, [14, 11]);
}

/// The room a text takes in the widest fixed-width font in use, whose letters are 0.61 of their height wide; measured
/// apart from the layout, which must leave enough of it.
fn room(text: &Text) -> Frame {
    let width = (text.line.width() * FONT_SIZE * 61).div_ceil(100);
    Frame { x: text.x, y: text.y - 10, width, height: 13 }
}

fn inside(inner: &Frame, outer: &Frame) -> bool {
    inner.x >= outer.x
        && inner.y >= outer.y
        && inner.x + inner.width <= outer.x + outer.width
        && inner.y + inner.height <= outer.y + outer.height
}

/// The straight pieces of an arrow, as the rectangles they fill.
fn pieces(arrow: &Arrow) -> Vec<Frame> {
    let piece = |pair: &[(usize, usize)]| {
        let [(x1, y1), (x2, y2)] = [pair[0], pair[1]];
        assert!(x1 == x2 || y1 == y2, "an arrow goes level or upright");
        Frame { x: x1.min(x2), y: y1.min(y2), width: x1.abs_diff(x2), height: y1.abs_diff(y2) }
    };
    arrow.points.windows(2).map(piece).collect()
}

fn touch(one: &Frame, other: &Frame) -> bool {
    one.x <= other.x + other.width
        && other.x <= one.x + one.width
        && one.y <= other.y + other.height
        && other.y <= one.y + one.height
}
