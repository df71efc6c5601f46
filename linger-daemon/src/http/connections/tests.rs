//! Eviction of connections.

use std::net::IpAddr;

use super::*;

const QUIET: Duration = Duration::from_secs(5);

fn host(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Returns whether the connection must end in favour of another.
async fn gives_way(connection: &Connection) -> bool {
    tokio::select! {
        biased;
        end = connection.must_end(QUIET) => end == End::GivesWay,
        () = async {} => false,
    }
}

#[tokio::test(start_paused = true)]
async fn the_peer_with_the_most_connections_gives_way() {
    let all = Connections::new(3);
    let good = all.admit(Some(host(1))).await;
    let flood = [
        all.admit(Some(host(2))).await,
        all.admit(Some(host(2))).await,
    ];
    let more = all.admit(Some(host(2))).await;
    assert!(!gives_way(&good).await, "although it has waited longest");
    assert!(gives_way(&flood[0]).await);
    assert!(!gives_way(&flood[1]).await && !gives_way(&more).await);
}

#[tokio::test(start_paused = true)]
async fn connections_with_a_waiting_response_give_way_last() {
    let all = Connections::new(2);
    let asking = all.admit(Some(host(1))).await;
    let request = asking.begin(Instant::now() + QUIET);
    request.begin_answer(1, false);
    let silent = all.admit(Some(host(1))).await;
    let third = all.admit(Some(host(1))).await;
    assert!(!gives_way(&asking).await && gives_way(&silent).await);
    let answered = third.begin(Instant::now() + QUIET);
    answered.begin_answer(1, false);
    let _fourth = all.admit(Some(host(1))).await;
    assert!(gives_way(&asking).await && !gives_way(&third).await);
}

#[tokio::test(start_paused = true)]
async fn silent_connections_evict_only_each_other() {
    let all = Connections::new(4);
    let greeted = [all.admit(None).await, all.admit(None).await];
    greeted.iter().for_each(Connection::has_greeted);
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(all.admit(None).await);
    }
    for connection in &greeted {
        assert!(!gives_way(connection).await, "although they came before");
    }
    // Those that have spoken evict each other, too.
    silent[5].has_greeted();
    let _more = all.admit(None).await;
    assert!(gives_way(&greeted[0]).await && !gives_way(&silent[4]).await);
}

#[tokio::test(start_paused = true)]
async fn silence_and_unread_responses_end_a_connection() {
    let all = Connections::new(2);
    let silent = all.admit(None).await;
    assert_eq!(silent.must_end(QUIET).await, End::Silent);
    let asking = all.admit(None).await;
    let due = Instant::now() + 2 * QUIET;
    let request = asking.begin(due);
    assert_eq!(asking.must_end(QUIET).await, End::Overdue);
    assert_eq!(Instant::now(), due + GRACE);
    drop(request);
    assert_eq!(asking.must_end(QUIET).await, End::Silent);
    assert_eq!(Instant::now(), due + GRACE + QUIET);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_response_ends_its_connection_only_if_it_holds_a_permit() {
    let all = Connections::new(3);
    let due = Instant::now() + 4 * QUIET;
    let whole = all.admit(None).await;
    let request_for_whole = whole.begin(due);
    request_for_whole.begin_answer(LONG, false);
    let stalled = all.admit(None).await;
    let request_of_stalled = stalled.begin(due);
    request_of_stalled.begin_answer(LONG, true);
    let reading = all.admit(None).await;
    let request_of_reading = reading.begin(due);
    request_of_reading.begin_answer(LONG, true);
    sleep_until(Instant::now() + STALL).await;
    request_of_reading.made(LONG);
    all.end_stalled();
    assert!(!gives_way(&whole).await, "to end it would free no permit");
    assert!(gives_way(&stalled).await && !gives_way(&reading).await);
}
