//! Both ends agree on every ending, and each detects faults of the other, or of a router between them.

use tokio::net::TcpListener;

use super::*;

const ENDINGS: [Ending; 6] = [
    Ending::ServerCloses,
    Ending::ClientResets,
    Ending::ServerPauses,
    Ending::ClientCloses,
    Ending::ClientHalfCloses,
    Ending::ServerHalfCloses,
];

/// How a connection ended at the client and at a server that acts as `serve` does.
fn ends(
    ending: Ending,
    serve: impl AsyncFnOnce(TcpStream, Frame) -> Result<(), Trouble> + 'static,
) -> (Result<(), String>, Result<(), String>) {
    let request = Request { ending, answer_bytes: 100_000, late_bytes: 70_000, silence_ms: 20 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let words = |end: Result<(), Trouble>| end.map_err(|trouble| format!("{trouble:?}"));
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let vipa = listener.local_addr().expect("bound");
        let server = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let asked = Frame::read(&mut stream).await?;
            serve(stream, asked).await
        });
        let stream = connect(vipa, 0).await.expect("the server listens");
        let end = ask(stream, &request, 7, |_| {}).await;
        (words(end), words(server.await.expect("no panic")))
    })
}

#[test]
fn both_ends_agree_on_every_ending() {
    for ending in ENDINGS {
        let end = ends(ending, async |mut stream, asked| answer(&mut stream, &asked, 1, [0; 16]).await);
        assert_eq!(end, (Ok(()), Ok(())), "{ending:?}");
    }
}

#[test]
fn a_client_notices_a_reset_before_and_after_the_answer() {
    for ending in ENDINGS.into_iter().filter(|ending| *ending != Ending::ClientResets) {
        let (client, _) = ends(ending, async |stream, _| stream.set_zero_linger().map_err(Trouble::Socket));
        assert!(client.as_ref().is_err_and(|why| why.contains("reset")), "{ending:?}: {client:?}");
    }
}

#[test]
fn a_client_notices_a_wrong_byte_a_missing_one_and_one_too_many() {
    let answered = |change: fn(&mut Vec<u8>)| {
        ends(Ending::ServerCloses, async move |mut stream, asked| {
            let connection = asked.connection;
            let header = Frame { kind: Kind::Answer, payload: Vec::new(), ..asked };
            header.write(&mut stream, &mut Vec::new()).await?;
            let mut bytes = body(connection, 100_000);
            change(&mut bytes);
            stream.write_all(&bytes).await.map_err(Trouble::Socket)
        })
        .0
    };
    assert_eq!(answered(|_| {}), Ok(()));
    assert!(answered(|bytes| bytes[99_999] ^= 1).is_err_and(|why| why.contains("wrong byte")));
    assert!(answered(|bytes| bytes.truncate(99_999)).is_err_and(|why| why.contains("end of the stream")));
    assert!(answered(|bytes| bytes.push(0)).is_err_and(|why| why.contains("where the end should come")));
}

#[test]
fn a_server_notices_late_bytes_that_do_not_come() {
    let (_, server) = ends(Ending::ServerHalfCloses, async |mut stream, mut asked| {
        let longer =
            Request { ending: Ending::ServerHalfCloses, answer_bytes: 100_000, late_bytes: 70_001, silence_ms: 0 };
        asked.payload = longer.frame(asked.connection).payload;
        answer(&mut stream, &asked, 1, [0; 16]).await
    });
    assert!(server.as_ref().is_err_and(|why| why.contains("end of the stream")), "{server:?}");
}

#[test]
fn a_fixed_port_is_used_again_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let vipa = listener.local_addr().expect("bound");
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::task::spawn_local(async move {
                    let asked = Frame::read(&mut stream).await?;
                    answer(&mut stream, &asked, 1, [0; 16]).await
                });
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").port();
        for ending in [Ending::ServerCloses, Ending::ClientResets, Ending::ServerCloses] {
            let request = Request { ending, answer_bytes: 10, late_bytes: 0, silence_ms: 0 };
            let stream = connect(vipa, free).await.expect("the port is free again");
            assert_eq!(stream.local_addr().expect("bound").port(), free);
            ask(stream, &request, 3, |_| {}).await.expect("an answer");
        }
    });
}
