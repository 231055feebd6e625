//! A connection of real sockets: a stream, and questions with their answers.
//!
//! One thread has both ends, so nobody has to be woken up.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    kernel::thread_time,
    scene::{Scene, THERE},
    stats::Samples,
};

/// Bytes that are written, and then read, at once.
pub(super) const CHUNK: usize = 64 << 10;
const PORT: u16 = 5001;
/// Chunks that are sent without a pause: they take longer than the time for which a budget of records is.
const STRETCH: u32 = 4_000;

/// Both ends of a connection.
pub(super) struct Talk {
    here: TcpStream,
    there: TcpStream,
    bytes: Vec<u8>,
}

impl Talk {
    pub(super) async fn new(scene: &Scene) -> Result<Self> {
        let listener = scene.namespace(1).run(|| TcpListener::bind((THERE, PORT))).await?.context("listen")?;
        let connect = || TcpStream::connect_timeout(&SocketAddr::from((THERE, PORT)), Duration::from_secs(5));
        let here = scene.namespace(0).run(connect).await?.context("connect")?;
        let (there, _) = listener.accept().context("accept")?;
        for end in [&here, &there] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(Duration::from_secs(5)))?;
        }
        let mut talk = Self { here, there, bytes: vec![7; CHUNK] };
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
