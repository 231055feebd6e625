//! The client against servers that misbehave, over real unix sockets.

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::{Client, OvsdbError, Schema, frame::FrameError, table::Tables};

/// For a server that answers, however busy the machine is.
const PATIENT: Duration = Duration::from_mins(1);
/// For one that never will.
const IMPATIENT: Duration = Duration::from_millis(300);

/// A client of a server that does to its first connection what `serve` says.
async fn client<F>(bound: Duration, serve: impl FnOnce(UnixStream) -> F) -> (TempDir, Client)
where
    F: Future<Output = ()> + Send + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::connect(&path, bound).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    tokio::spawn(serve(stream));
    (directory, client)
}

/// Reads one request; they are small enough to come in one piece.
async fn request(stream: &mut UnixStream) -> Value {
    let mut buffer = vec![0; 1 << 16];
    let length = stream.read(&mut buffer).await.unwrap();
    serde_json::from_slice(&buffer[..length]).unwrap()
}

async fn answer(stream: &mut UnixStream, result: Value) {
    let id = request(stream).await["id"].clone();
    let message = json!({ "id": id, "result": result, "error": null });
    stream.write_all(message.to_string().as_bytes()).await.unwrap();
}

fn schema() -> Value {
    json!({ "name": "Open_vSwitch", "tables": { "Port": { "columns": { "name": {}, "tag": {} } } } })
}

async fn schema_of(raw: &'static [u8], then_close: bool) -> Result<Schema, OvsdbError> {
    let bound = if raw.is_empty() && !then_close { IMPATIENT } else { PATIENT };
    let (_directory, mut client) = client(bound, async move |mut stream| {
        request(&mut stream).await;
        stream.write_all(raw).await.unwrap();
        if !then_close {
            tokio::time::sleep(PATIENT).await;
        }
    })
    .await;
    client.schema("Open_vSwitch").await
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_the_bound() {
    let error = schema_of(b"", false).await.unwrap_err();
    assert_eq!(error.to_string(), "get_schema: no answer within 300 ms");
}

#[tokio::test]
async fn a_server_that_talks_without_end_is_given_up_after_the_bound() {
    let (_directory, mut client) = client(IMPATIENT, async |mut stream: UnixStream| {
        while stream.write_all(br#"{"method":"update2","params":[],"id":null}"#).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(matches!(client.schema("Open_vSwitch").await, Err(OvsdbError::Hangs { .. })));
}

#[tokio::test]
async fn garbage_is_refused_as_soon_as_it_is_seen() {
    let error = schema_of(b"SSH-2.0-OpenSSH_9.2\r\n", false).await.unwrap_err();
    assert!(matches!(error, OvsdbError::Frame { source: FrameError::NotAnObject(b'S'), .. }), "{error:?}");
}

#[tokio::test]
async fn an_object_that_is_no_json_is_an_error() {
    for raw in [&b"{no json}"[..], br#"{"id":"\ud800"}"#, br#"{"id":1e999}"#, br#"{"method":5}"#] {
        let error = schema_of(raw, false).await.unwrap_err();
        assert!(matches!(error, OvsdbError::Message { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn nesting_without_end_is_an_error_and_no_overflow() {
    let deep: &'static [u8] =
        Box::leak(format!("{{\"id\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes().into());
    assert!(matches!(schema_of(deep, false).await, Err(OvsdbError::Message { .. })));
}

#[tokio::test]
async fn half_an_answer_is_told_from_none() {
    let half = schema_of(br#"{"id":0,"result":{"tab"#, true).await.unwrap_err();
    assert_eq!(half.to_string(), "get_schema: the server closed the connection in the middle of an answer");
    let none = schema_of(b"", true).await.unwrap_err();
    assert_eq!(none.to_string(), "get_schema: the server closed the connection without an answer");
}

#[tokio::test]
async fn the_answer_to_another_request_is_passed_over() {
    let raw = br#"{"id":7,"result":{},"error":null}{"id":0,"result":{"tables":{"Port":{"columns":{"tag":{}}}}}}"#;
    let (columns, missing) = schema_of(raw, false).await.unwrap().common(&[("Port", &["tag"])]);
    assert_eq!((columns["Port"].as_slice(), missing.len()), (&["tag"][..], 0));
}

#[tokio::test]
async fn a_refusal_carries_the_error_of_the_server() {
    let raw = br#"{"id":0,"result":null,"error":{"error":"unknown database"}}"#;
    let error = schema_of(raw, false).await.unwrap_err();
    assert_eq!(error.to_string(), r#"get_schema: the server answers {"error":"unknown database"}"#);
}

#[tokio::test]
async fn an_answer_of_the_wrong_shape_is_an_error() {
    for raw in [&br#"{"id":0}"#[..], br#"{"id":0,"result":[]}"#, br#"{"id":0,"result":{"tables":[]}}"#] {
        assert!(matches!(schema_of(raw, false).await, Err(OvsdbError::Shape { expected: "tables", .. })));
    }
}

#[tokio::test]
async fn an_echo_before_the_answer_is_answered_and_the_answer_awaited() {
    let (_directory, mut client) = client(PATIENT, async |mut stream: UnixStream| {
        let id = request(&mut stream).await["id"].clone();
        stream.write_all(br#"{"id":"echo","method":"echo","params":["are you there"]}"#).await.unwrap();
        let echo = request(&mut stream).await;
        assert_eq!(echo, json!({ "id": "echo", "result": ["are you there"], "error": null }));
        let message = json!({ "id": id, "result": schema(), "error": null });
        stream.write_all(message.to_string().as_bytes()).await.unwrap();
    })
    .await;
    client.schema("Open_vSwitch").await.unwrap();
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_read() {
    let (_directory, mut client) = client(PATIENT, async |mut stream: UnixStream| {
        request(&mut stream).await;
        for byte in json!({ "id": 0, "result": schema() }).to_string().bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.schema("Open_vSwitch").await.unwrap();
}

#[tokio::test]
async fn a_server_without_monitor_cond_is_asked_with_monitor() {
    let (_directory, mut client) = client(PATIENT, async |mut stream: UnixStream| {
        answer(&mut stream, schema()).await;
        let asked = request(&mut stream).await;
        assert_eq!(asked["params"][2], json!({ "Port": [{ "columns": ["tag"] }] }));
        let refusal = json!({ "id": asked["id"], "result": null, "error": { "error": "unknown method" } });
        stream.write_all(refusal.to_string().as_bytes()).await.unwrap();
        answer(&mut stream, json!({ "Port": { "u": { "new": { "tag": 5 } } } })).await;
    })
    .await;
    let (columns, missing) = client.schema("Open_vSwitch").await.unwrap().common(&[("Port", &["tag", "qos"])]);
    assert_eq!(missing, ["Port.qos"]);
    let mut tables: Tables = client.monitor("Open_vSwitch", &columns).await.unwrap();
    let tag = tables.take("Port", "u").unwrap().integer::<u16>("tag", &mut tables.odd);
    assert_eq!(tag, Some(5));
}

#[tokio::test]
async fn a_byte_that_is_no_utf8_costs_one_character() {
    let raw = b"{\"id\":0,\"result\":{\"tables\":{\"Po\xffrt\":{\"columns\":{}}}}}";
    let (_, missing) = schema_of(raw, false).await.unwrap().common(&[("Po\u{fffd}rt", &[])]);
    assert!(missing.is_empty());
}

#[tokio::test]
async fn a_change_of_what_is_monitored_is_noticed_and_other_messages_are_not_taken_for_one() {
    let (_directory, mut client) = client(PATIENT, async |mut stream: UnixStream| {
        answer(&mut stream, json!({ "Port": {} })).await;
        stream
            .write_all(br#"{"id":"echo","method":"echo","params":[]}{"id":null,"method":"locked","params":[]}"#)
            .await
            .unwrap();
        assert_eq!(request(&mut stream).await["id"], "echo");
        stream.write_all(br#"{"id":null,"method":"update2","params":["netdiag",{}]}"#).await.unwrap();
        // Then the server goes away.
    })
    .await;
    client.monitor("Open_vSwitch", &[("Port", vec!["name"])].into()).await.unwrap();
    client.changed().await.unwrap();
    assert!(matches!(client.changed().await, Err(OvsdbError::Closed { .. } | OvsdbError::Io { .. })));
}
