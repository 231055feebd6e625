//! Does the same thing to many items at once.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, anyhow};

/// How many things run at once: most of them wait for the kernel or for Docker.
const WORKERS: usize = 8;

/// Applies `work` to every item and returns the results in the order of the items.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let worker = || -> Result<()> {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return Ok(()) };
            let result = work(item);
            results.lock().map_err(|_| anyhow!("another worker panicked"))?.push((place, result));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(items.len())).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let mut results = results.into_inner().map_err(|_| anyhow!("a worker panicked")).context("collect results")?;
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::map;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(map(&items, |n| Ok(n * 2)).unwrap(), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(map(&[] as &[u32], |n| Ok(*n)).unwrap(), [] as [u32; 0]);
    }

    #[test]
    fn one_failure_is_the_result() {
        let odd = map(&[0, 1, 2], |n| if *n == 1 { bail!("no {n}") } else { Ok(*n) });
        assert_eq!(odd.unwrap_err().to_string(), "no 1");
    }
}
