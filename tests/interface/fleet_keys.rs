//! Servers that share keys stand in for each other: what one has given out, another takes, and what one has forgotten, another ends.

use std::sync::Arc;
use std::time::Duration;

use ringway::sim::Link;
use ringway::{Direction, EventStatus, ExecutionConfig, Registration, RetryPolicy, Stream, StreamEvent};
use ringway_tests::address;

use super::scene::{SERVER, Scene, echo};

const DELAY: Duration = Duration::from_millis(100);

fn accept_all(scene: &Scene) -> ringway::Listener {
    let (configuration, log) = (Arc::clone(&scene.server_config), scene.server_log.clone());
    scene.listen_with(RetryPolicy::Always, move |incoming| {
        drop(incoming.accept(&configuration, echo(log.clone())))
    })
}

/// Another server takes the place of the one that there is, which is gone as if its power had failed.
fn replace(scene: &mut Scene) -> Registration {
    // Nothing that it says in its last breath is heard.
    scene.world.network.set_default_link(Link {
        blackout: true,
        delay: DELAY,
        ..Link::default()
    });
    let another = scene
        .world
        .host_as("192.0.2.99".parse().unwrap(), 1, 1, &ExecutionConfig::default());
    std::mem::replace(&mut scene.server, another)
        .shutdown_within(0, Duration::ZERO)
        .unwrap();
    scene.wait(Duration::from_millis(1));
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        ..Link::default()
    });
    let server = scene
        .world
        .host_as(address(SERVER).ip(), 1, 1, &ExecutionConfig::default());
    std::mem::replace(&mut scene.server, server)
}

fn delayed() -> Scene {
    let scene = Scene::new();
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        ..Link::default()
    });
    scene
}

#[test]
fn token_of_another_server_saves_the_retry_as_long_as_its_secret_is_known() {
    let (old, new) = ([1; 32], [2; 32]);
    for (secrets, taken) in [(&[old][..], true), (&[new, old], true), (&[new], false)] {
        let mut scene = delayed();
        scene.server.set_token_secrets(&[old]);
        let listener = accept_all(&scene);
        let first = scene.start();
        scene.until("connected", |scene| scene.log.find("Connected").is_some());
        // With the token of a NEW_TOKEN frame.
        scene.wait(Duration::from_secs(1));
        first.shutdown(0).unwrap();
        scene.wait(Duration::from_secs(1));
        drop(listener);
        scene.wait(Duration::from_secs(1));
        drop(replace(&mut scene));
        scene.server.set_token_secrets(secrets);
        let _listener = accept_all(&scene);
        let second = scene.start();
        scene.until("connected", |scene| scene.log.count("Connected") == 2);
        assert_eq!(scene.stats(&second).stateless_retry, !taken);
    }
}

#[test]
fn retry_of_one_server_is_answered_to_another() {
    let secret = [7; 32];
    for shared in [true, false] {
        let mut scene = delayed();
        scene.server.set_token_secrets(&[secret]);
        let listener = accept_all(&scene);
        scene.start();
        // The Retry is on its way back.
        scene.wait(DELAY + DELAY / 2);
        assert_eq!(scene.server_log.find("Connected"), None);
        drop(listener);
        drop(replace_quietly(&mut scene));
        if shared {
            scene.server.set_token_secrets(&[secret]);
        }
        let _listener = accept_all(&scene);
        scene.wait(Duration::from_secs(2));
        assert_eq!(scene.log.find("Connected").is_some(), shared);
        assert_eq!(
            scene
                .log
                .find("ShutdownByTransport")
                .is_some_and(|event| event.contains("INVALID_TOKEN")),
            !shared
        );
    }
}

/// As [`replace`], and what is on its way arrives.
fn replace_quietly(scene: &mut Scene) -> Registration {
    let another = scene
        .world
        .host_as("192.0.2.99".parse().unwrap(), 1, 1, &ExecutionConfig::default());
    let gone = std::mem::replace(&mut scene.server, another);
    gone.shutdown_within(0, Duration::ZERO).unwrap();
    scene.wait(Duration::from_millis(1));
    let server = scene
        .world
        .host_as(address(SERVER).ip(), 1, 1, &ExecutionConfig::default());
    drop(std::mem::replace(&mut scene.server, server));
    gone
}

#[test]
fn connection_that_its_server_has_forgotten_is_reset_by_one_with_its_key() {
    let key = [9; 32];
    for shared in [true, false] {
        let mut scene = delayed();
        scene.server.set_stateless_reset_key(key);
        let listener = scene.listen();
        let (client, _) = scene.connect();
        scene.wait(Duration::from_secs(1));
        drop(listener);
        drop(replace(&mut scene));
        if shared {
            scene.server.set_stateless_reset_key(key);
        }
        let _listener = scene.listen();
        let stream = Stream::open(
            &client,
            Direction::Unidirectional,
            |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
        )
        .unwrap();
        stream.start(false).unwrap();
        stream.send(vec![0; 1000].into(), 0, true).unwrap();
        scene.wait(Duration::from_secs(3));
        let reset = scene
            .log
            .find("ShutdownByTransport")
            .is_some_and(|event| event.contains("StatelessReset"));
        assert_eq!(reset, shared);
    }
}
