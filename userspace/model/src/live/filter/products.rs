//! Any expression as a sum of products, which is what the kernel evaluates.

use super::{
    Unfit, Wanted,
    possible::{is_part, is_possible},
};
use crate::live::{Clause, Filter, Product};

/// Alternatives that are kept while an expression is multiplied out: more will not become few enough.
const MOST: usize = 4096;

/// Answers that are wanted together: bit n is about clause n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Term {
    covered: u64,
    uncovered: u64,
}

/// What the kernel asks.
pub(super) fn compile(wanted: &Wanted) -> Result<Filter, Unfit> {
    let mut clauses = Vec::new();
    number(wanted, &mut clauses);
    // Every product has a bit for each, so those that are asked nowhere after all are left out below.
    if clauses.len() > 64 {
        return Err(Unfit::Clauses(clauses.len()));
    }
    let terms = simple(terms(wanted, true, &clauses)?, &clauses)?;
    if terms.is_empty() {
        return Err(Unfit::Nothing);
    }
    if terms.contains(&Term { covered: 0, uncovered: 0 }) {
        return Ok(Filter::default());
    }
    let asked = terms.iter().fold(0, |asked, term| asked | term.covered | term.uncovered);
    let kept: Vec<usize> = (0..clauses.len()).filter(|place| asked >> place & 1 == 1).collect();
    if kept.len() > Filter::CLAUSES {
        return Err(Unfit::Clauses(kept.len()));
    }
    if terms.len() > Filter::PRODUCTS {
        return Err(Unfit::Products(terms.len()));
    }
    let narrow = |bits: u64| {
        kept.iter().enumerate().fold(0_u16, |narrow, (to, from)| narrow | u16::from(bits >> from & 1 == 1) << to)
    };
    let products =
        terms.iter().map(|term| Product { covered: narrow(term.covered), uncovered: narrow(term.uncovered) });
    Ok(Filter { products: products.collect(), clauses: kept.iter().map(|place| clauses[*place].clone()).collect() })
}

/// Collects every different clause once.
fn number(wanted: &Wanted, clauses: &mut Vec<Clause>) {
    match wanted {
        Wanted::Any => {}
        Wanted::Clause(clause) if clauses.contains(clause) => {}
        Wanted::Clause(clause) => clauses.push(clause.clone()),
        Wanted::Not(not) => number(not, clauses),
        Wanted::All(several) | Wanted::One(several) => several.iter().for_each(|one| number(one, clauses)),
    }
}

/// The products of an expression, or of its opposite.
fn terms(wanted: &Wanted, so: bool, clauses: &[Clause]) -> Result<Vec<Term>, Unfit> {
    match (wanted, so) {
        (Wanted::Any, true) => Ok(vec![Term { covered: 0, uncovered: 0 }]),
        (Wanted::Any, false) => Ok(Vec::new()),
        (Wanted::Clause(clause), so) => {
            let bit = clauses.iter().position(|one| one == clause).map_or(0, |place| 1 << place);
            Ok(vec![if so { Term { covered: bit, uncovered: 0 } } else { Term { covered: 0, uncovered: bit } }])
        }
        (Wanted::Not(not), so) => terms(not, !so, clauses),
        (Wanted::All(several), true) | (Wanted::One(several), false) => {
            several.iter().try_fold(vec![Term { covered: 0, uncovered: 0 }], |sum, one| {
                multiply(&sum, &terms(one, so, clauses)?, clauses)
            })
        }
        (Wanted::One(several), true) | (Wanted::All(several), false) => {
            let mut sum = Vec::new();
            for one in several {
                sum.extend(terms(one, so, clauses)?);
            }
            simple(sum, clauses)
        }
    }
}

fn multiply(one: &[Term], other: &[Term], clauses: &[Clause]) -> Result<Vec<Term>, Unfit> {
    if one.len().saturating_mul(other.len()) > MOST {
        return Err(Unfit::Products(MOST));
    }
    let both = |one: &Term, other: &Term| Term {
        covered: one.covered | other.covered,
        uncovered: one.uncovered | other.uncovered,
    };
    simple(one.iter().flat_map(|one| other.iter().map(move |other| both(one, other))).collect(), clauses)
}

/// Without contradictions, and without what another product has already.
fn simple(terms: Vec<Term>, clauses: &[Clause]) -> Result<Vec<Term>, Unfit> {
    if terms.len() > MOST {
        return Err(Unfit::Products(terms.len()));
    }
    let mut kept: Vec<Term> = Vec::new();
    for term in terms.into_iter().filter_map(|term| sensible(term, clauses)) {
        if !kept.iter().any(|kept| includes(*kept, term)) {
            kept.retain(|kept| !includes(term, *kept));
            kept.push(term);
        }
    }
    Ok(kept)
}

/// A product without questions that another of its own answers; none where no packet can meet it.
fn sensible(term: Term, clauses: &[Clause]) -> Option<Term> {
    let asked = |bits: u64| (0..clauses.len()).filter(move |place| bits >> place & 1 == 1);
    let of = |bits: u64| asked(bits).map(|place| &clauses[place]).collect::<Vec<_>>();
    if term.covered & term.uncovered != 0 || !is_possible(&of(term.covered), &of(term.uncovered)) {
        return None;
    }
    let part = |one: usize, other: usize| is_part(&clauses[one], &clauses[other]);
    // Two that are parts of each other ask the same: the first of them stays.
    let answered = |place: usize, other: usize| part(other, place) && !(part(place, other) && place < other);
    let refused = |place: usize, other: usize| part(place, other) && !(part(other, place) && place < other);
    let kept = |bits: u64, has: &dyn Fn(usize, usize) -> bool| {
        let needed = |place: &usize| !asked(bits).any(|other| other != *place && has(*place, other));
        asked(bits).filter(needed).fold(0, |bits, place| bits | 1 << place)
    };
    Some(Term { covered: kept(term.covered, &answered), uncovered: kept(term.uncovered, &refused) })
}

/// Whether every packet of one product is one of another.
const fn includes(wide: Term, narrow: Term) -> bool {
    wide.covered & !narrow.covered == 0 && wide.uncovered & !narrow.uncovered == 0
}
