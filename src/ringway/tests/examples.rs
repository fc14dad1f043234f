//! Every example runs and does what it says.
#![cfg(feature = "sim")]
#![allow(dead_code, reason = "the examples' own main functions")]
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what they have in common, as it would by itself"
)]

use std::path::Path;
use std::time::Duration;

#[path = "../examples/common/mod.rs"]
mod common;

macro_rules! examples {
    ($($name:ident $path:literal)*) => { $(#[path = $path] mod $name;)* };
}

examples! {
    back_pressure "../examples/back_pressure.rs"
    client_certificates "../examples/client_certificates.rs"
    datagrams "../examples/datagrams.rs"
    drain_and_reload "../examples/drain_and_reload.rs"
    echo_client "../examples/echo_client.rs"
    echo_server "../examples/echo_server.rs"
    file_server "../examples/file_server.rs"
    requests_with_timeouts "../examples/requests_with_timeouts.rs"
    simulated_network "../examples/simulated_network.rs"
    socket_activation "../examples/socket_activation.rs"
    two_names "../examples/two_names.rs"
}

#[test]
fn echo_client_hears_the_echo_server() {
    let (credentials, trusted) = common::certificate("localhost").unwrap();
    let (_registration, listener) = echo_server::serve("127.0.0.1:0".parse().unwrap(), credentials).unwrap();
    let echo = echo_client::echo(listener.local_address(), "localhost", trusted, "hello").unwrap();
    assert_eq!(echo, "hello");
}

/// As a socket unit starts its service, for a client that has come.
#[test]
fn service_serves_the_client_that_it_was_started_for() {
    // The process that this test starts runs this test too.
    if let Some(folder) = std::env::var_os("SERVICE_FILES") {
        service(Path::new(&folder));
    }
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("ringway-activation-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("chain.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let trusted = ringway::ClientCredentials::roots(vec![made.cert.der().clone()]);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let client =
        std::thread::spawn(move || echo_client::echo(address, "localhost", trusted, "hello").unwrap());
    while socket.peek(&mut [0; 2048]).unwrap() == 0 {}
    // The first descriptor that is passed is 3, to the process whose number is in the environment.
    let mut service = std::process::Command::new("sh")
        .args([
            "-c",
            r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@""#,
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "service_serves_the_client_that_it_was_started_for",
            "--nocapture",
        ])
        .env("SERVICE_FILES", &folder)
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let echo = client.join();
    service.kill().unwrap();
    service.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(echo.unwrap(), "hello");
}

/// Serves on the sockets that this process was started with, until it is killed.
fn service(folder: &Path) -> ! {
    let pem = |name| std::fs::read(folder.join(name)).unwrap();
    let credentials = ringway::ServerCredentials::from_pem(&pem("chain.pem"), &pem("key.pem")).unwrap();
    let _serving = socket_activation::serve(socket_activation::passed().unwrap(), credentials).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn service_that_is_passed_no_socket_says_so() {
    assert!(
        socket_activation::passed()
            .unwrap_err()
            .to_string()
            .contains("socket unit")
    );
}

#[test]
fn file_server_sends_files_of_its_folder_and_no_others() {
    use ringway::*;
    let folder = std::env::temp_dir().join(format!("ringway-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
    std::fs::write(folder.join("file"), &content).unwrap();
    let (credentials, trusted) = common::certificate("localhost").unwrap();
    let (registration, listener) =
        file_server::serve("127.0.0.1:0".parse().unwrap(), credentials, folder.clone()).unwrap();
    let configuration = Configuration::client(&[b"files"], Settings::default(), trusted).unwrap();
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
    let connection = Connection::start(&registration, &configuration, &target, ignore).unwrap();
    let get = |name: &'static str| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut file = Vec::new();
        let stream = Stream::open(
            &connection,
            Direction::Bidirectional,
            move |_: &Stream, event: StreamEvent<'_>| {
                match event {
                    StreamEvent::Receive(data) => {
                        file.extend(data.to_vec());
                        if data.fin() {
                            let _ = sender.send(Ok(std::mem::take(&mut file)));
                        }
                    }
                    StreamEvent::PeerSendAborted { code } => drop(sender.send(Err(code))),
                    _ => {}
                }
                EventStatus::Done
            },
        )
        .unwrap();
        stream.start(false).unwrap();
        stream.send(Bytes::from_static(name.as_bytes()), 0, true).unwrap();
        receiver.recv_timeout(Duration::from_secs(20)).unwrap()
    };
    assert!(get("file") == Ok(content));
    for wrong in ["none", "../etc/passwd", "/etc/passwd", "", "."] {
        assert_eq!(get(wrong), Err(404), "{wrong}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn each_name_has_its_certificate_and_a_third_is_refused() {
    let outcomes = two_names::run().unwrap();
    assert_eq!(
        outcomes[..2],
        [Ok("one.example".to_owned()), Ok("two.example".to_owned())]
    );
    assert!(outcomes[2].as_ref().unwrap_err().contains("112"), "{outcomes:?}");
}

#[test]
fn requests_that_are_not_answered_are_given_up() {
    assert_eq!(
        requests_with_timeouts::run(Duration::from_secs(2)).unwrap(),
        (45, 5)
    );
}

#[test]
fn server_reloads_and_drains() {
    drain_and_reload::run().unwrap();
}

#[test]
fn datagrams_arrive() {
    let (received, acknowledged) = datagrams::run(100).unwrap();
    assert!(
        received > 0 && acknowledged > 50,
        "{received} received, {acknowledged} acknowledged"
    );
}

#[test]
fn client_without_a_certificate_is_refused() {
    let (with, without) = client_certificates::run().unwrap();
    assert_eq!(with, Ok(1));
    assert!(without.unwrap_err().contains("certificate"));
}

#[test]
fn no_more_is_under_way_than_was_asked_for() {
    let (received, most) = back_pressure::run(100).unwrap();
    assert_eq!(received, 100 * (64 << 10));
    assert!(most <= 8 * (64 << 10), "{most} bytes");
}

#[test]
fn simulated_network_is_the_same_each_time() {
    let (bytes, time) = simulated_network::run(7).unwrap();
    assert_eq!(bytes, 1 << 20);
    assert!(
        time > Duration::from_millis(100) && time < Duration::from_secs(60),
        "{time:?}"
    );
    assert_eq!(simulated_network::run(7).unwrap().0, bytes);
}
