//! A web server for `curl`: `GET /N` gives N bytes, each with its offset as its value.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result};

const LARGEST: usize = 1 << 30;

/// Serves for ever.
pub fn web(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // A client that disconnects is no fault.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).and_then(|path| path.strip_prefix('/'));
    let Some(size) = path.and_then(|size| size.parse::<usize>().ok()).filter(|size| *size <= LARGEST) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n")?;
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 16).collect();
    let mut left = size;
    while left > 0 {
        let some = left.min(bytes.len());
        stream.write_all(&bytes[..some])?;
        left -= some;
    }
    Ok(())
}
