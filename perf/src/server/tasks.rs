//! The server as tasks: one for each connection, and one for each request whose answer has to wait.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use ringway_async::{Connection, Incoming, Listener, ReadError, RecvStream, SendStream, VarInt, WriteError};
use ringway_perf_protocol::RequestHeader;
use tokio_util::sync::ReusableBoxFuture;

use super::responder::Shared;

/// Accepts connections until the listener stops.
pub(super) async fn serve(listener: Arc<Listener>, shared: &'static Shared, gives_tickets: bool) {
    while let Some(incoming) = listener.accept().await {
        tokio::spawn(serve_connection(incoming, shared, gives_tickets));
    }
}

async fn serve_connection(incoming: Incoming, shared: &'static Shared, gives_tickets: bool) {
    // Requests in 0-RTT are answered at once.
    let Ok((connection, connected)) = incoming.accept().into_0rtt() else {
        return;
    };
    if gives_tickets {
        let connection = connection.callback_handle().clone();
        tokio::spawn(async move {
            connected.await;
            // A client that gets none says so.
            let _ = connection.send_resumption_ticket(b"");
        });
    }
    let mut spare = None::<ReusableBoxFuture<'static, ()>>;
    while let Ok((send, receive)) = connection.accept_bi().await {
        let answer = answer(send, receive, shared, partition(&connection));
        let mut answer = match spare.take() {
            Some(mut memory) => {
                memory.set(answer);
                memory
            }
            None => ReusableBoxFuture::new(answer),
        };
        // Most are done at once, and their memory serves again: a task is for those that wait.
        match poll_fn(|cx| Poll::Ready(answer.poll(cx))).await {
            Poll::Ready(()) => spare = Some(answer),
            Poll::Pending => drop(tokio::spawn(answer)),
        }
    }
    if let Ok(stats) = connection.stats().await {
        shared.on_ended(partition(&connection), &stats);
    }
}

fn partition(connection: &Connection) -> usize {
    connection.callback_handle().partition()
}

async fn answer(mut send: SendStream, mut receive: RecvStream, shared: &'static Shared, partition: usize) {
    // What fails ends the stream, which its client sees.
    match read_request(&mut receive, shared, partition).await {
        Ok(Some(len)) => drop(respond(&mut send, len, shared, partition).await),
        // Less than a header is no request.
        Ok(None) => drop(send.reset(VarInt::from_u32(1))),
        Err(_) => {}
    }
}

/// Gives the length of the response that it asks for.
async fn read_request(
    receive: &mut RecvStream,
    shared: &Shared,
    partition: usize,
) -> Result<Option<u64>, ReadError> {
    let mut header = RequestHeader::default();
    let (mut offset, mut correct) = (0, true);
    while let Some(chunk) = receive.read_chunk(usize::MAX).await? {
        let rest = header.take(&chunk);
        correct &= shared.is_correct(offset, rest);
        offset += rest.len() as u64;
        shared.on_request_bytes(partition, chunk.len());
    }
    shared.on_request(partition, correct);
    Ok(header.response_len())
}

async fn respond(
    send: &mut SendStream,
    len: u64,
    shared: &Shared,
    partition: usize,
) -> Result<(), WriteError> {
    let mut offset = 0;
    loop {
        let piece = shared.piece(offset, len);
        let count = piece.len() as u64;
        offset += count;
        if offset == len {
            send.finish_with(piece).await?;
        } else {
            send.write_chunk(piece).await?;
        }
        shared.on_response_bytes(partition, count);
        if offset == len {
            return Ok(());
        }
    }
}
