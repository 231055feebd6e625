//! Connections of real sockets: a stream, and questions with their answers.
//!
//! One thread has both ends, so nobody has to be woken up; but for the stream between two threads, which is what two programs have.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    kernel::{process_time, thread_time},
    scene::{Scene, THERE},
    stats::Samples,
};

/// Bytes that are written, and then read, at once.
pub(super) const CHUNK: usize = 64 << 10;
const PORT: u16 = 5001;
/// Chunks that are sent without a pause: they take longer than the time for which a budget of records is.
const STRETCH: u32 = 4_000;

/// Bytes that a thread of its own writes, and another reads, at once: what iperf3 takes.
const BLOCK: usize = 2 * CHUNK;
/// How many of them are a sample: they take longer than the time for which a budget of records is.
const BLOCKS: u32 = 1_024;

/// Both ends of two connections.
pub(super) struct Talk {
    here: TcpStream,
    there: TcpStream,
    bytes: Vec<u8>,
    /// The ends that are written and read by two threads.
    apart: (TcpStream, TcpStream),
}

impl Talk {
    pub(super) async fn new(scene: &Scene) -> Result<Self> {
        let listener = scene.namespace(1).run(|| TcpListener::bind((THERE, PORT))).await?.context("listen")?;
        let (here, there) = connection(scene, &listener).await?;
        for end in [&here, &there] {
            end.set_nodelay(true)?;
        }
        let apart = connection(scene, &listener).await?;
        let mut talk = Self { here, there, bytes: vec![7; CHUNK], apart };
        // Until the windows are open.
        for _ in 0..200 {
            talk.chunk()?;
        }
        Ok(talk)
    }

    /// Sends a chunk there.
    fn chunk(&mut self) -> Result<()> {
        self.here.write_all(&self.bytes).context("send a chunk")?;
        self.there.read_exact(&mut self.bytes).context("receive a chunk")
    }

    /// Sends a chunk there, which adds a sample.
    pub(super) fn stream(&mut self, samples: &mut Samples) -> Result<()> {
        let before = Instant::now();
        self.chunk()?;
        samples.add(before.elapsed().as_secs_f64() * 1e9);
        Ok(())
    }

    /// Sends many chunks without a pause, which adds a sample: what one of them took of the CPU.
    pub(super) fn stretch(&mut self, samples: &mut Samples) -> Result<()> {
        let before = thread_time();
        for _ in 0..STRETCH {
            self.chunk()?;
        }
        samples.add(thread_time().saturating_sub(before).as_secs_f64() * 1e9 / f64::from(STRETCH));
        Ok(())
    }

    /// Sends many blocks from one thread to another, which adds a sample: what a chunk of them took of the CPU, both ends together.
    pub(super) fn apart(&mut self, samples: &mut Samples) -> Result<()> {
        let (here, there) = &mut self.apart;
        let before = process_time();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut bytes = vec![0; BLOCK];
                (0..BLOCKS).try_for_each(|_| there.read_exact(&mut bytes))
            });
            let bytes = vec![7; BLOCK];
            (0..BLOCKS).try_for_each(|_| here.write_all(&bytes)).context("send blocks")?;
            reader.join().map_err(|_| anyhow!("the reader panicked"))?.context("receive blocks")
        })?;
        let took = process_time().saturating_sub(before).as_secs_f64() * 1e9;
        samples.add(took / f64::from(2 * BLOCKS));
        Ok(())
    }

    /// Asks and answers, which adds a sample.
    pub(super) fn trip(&mut self, samples: &mut Samples) -> Result<()> {
        let mut byte = [1];
        let before = Instant::now();
        self.here.write_all(&byte)?;
        self.there.read_exact(&mut byte)?;
        self.there.write_all(&byte)?;
        self.here.read_exact(&mut byte)?;
        samples.add(before.elapsed().as_secs_f64() * 1e9);
        Ok(())
    }
}

/// A connection from the first instance to the second.
async fn connection(scene: &Scene, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let connect = || TcpStream::connect_timeout(&SocketAddr::from((THERE, PORT)), Duration::from_secs(5));
    let here = scene.namespace(0).run(connect).await?.context("connect")?;
    let (there, _) = listener.accept().context("accept")?;
    for end in [&here, &there] {
        end.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    Ok((here, there))
}
