//! Basic authentication with passwords hashed by bcrypt, which is slow on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::ops::Range;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Mistake;
use crate::http::fair_semaphore::PeerSemaphores;
use crate::http::listen::Peer;
use crate::sync::lock;

/// Maximum cost of a hash: about three seconds of work. Each step beyond it doubles the time.
const MAX_COST: u32 = 16;

/// Maximum number of passwords that wait to be checked, one after another: in total, and of each peer.
const MAX_WAITING: usize = 16;
const MAX_WAITING_OF_PEER: usize = 4;

/// Maximum number of correct passwords that are remembered.
const MAX_REMEMBERED: usize = 64;

/// Names of users, with the hashes of their passwords.
#[derive(Default)]
pub(super) struct Users(BTreeMap<String, Hash>);

/// A hash of bcrypt.
struct Hash {
    text: Arc<str>,
    cost: u32,
}

impl Users {
    /// Checks that every hash is valid, and not too costly.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self, Mistake> {
        let users = hashes.into_iter().map(|(user, hash)| {
            let wrong = |why: String| Mistake::Hash {
                user: user.clone(),
                why,
            };
            let parts = HashParts::from_str(&hash).map_err(|_| {
                let example = "htpasswd -nBC 10 '' | tr -d ':\\n'";
                wrong(format!("no hash of bcrypt, make one with `{example}`"))
            })?;
            let cost = parts.get_cost();
            if cost > MAX_COST {
                return Err(wrong(format!(
                    "a cost of {cost} takes too long, expected at most {MAX_COST}"
                )));
            }
            let text = hash.into();
            Ok((user, Hash { text, cost }))
        });
        Ok(Self(users.collect::<Result<_, _>>()?))
    }

    /// Returns the hash to check a password with, that of some user if the name is unknown; then the costs of the hashes
    /// to compute as well if it is wrong, so that all names take as long as that with the highest cost. Each step of the
    /// cost doubles the time.
    fn hash_for(&self, user: &str) -> Option<(&Hash, Range<u32>)> {
        let costliest = self.0.values().max_by_key(|hash| hash.cost)?;
        let hash = self.0.get(user).unwrap_or(costliest);
        Some((hash, hash.cost..costliest.cost))
    }

    /// Returns whether there are no users, so that everyone is allowed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reason to refuse a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Refusal {
    /// It has no name and password, or wrong ones.
    Unknown,
    /// Too many passwords wait already.
    Busy,
}

/// Checks passwords, one at a time.
pub(super) struct Gate {
    turn: Arc<Semaphore>,
    waiting: Semaphore,
    waiting_of_peer: PeerSemaphores,
    /// Tags of passwords that were right, the oldest first.
    remembered: Mutex<VecDeque<Tag>>,
    /// Key of the tags, so that a tag alone does not reveal its password.
    secret: hmac::Key,
}

type Tag = [u8; 32];

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(MAX_WAITING),
            waiting_of_peer: PeerSemaphores::default(),
            remembered: Mutex::default(),
            secret: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .expect("the kernel has random numbers"),
        }
    }

    /// Fails unless a request with these headers is from one of the users, or there are none.
    pub(super) async fn check(
        &self,
        users: &Users,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<(), Refusal> {
        if users.is_empty() {
            return Ok(());
        }
        let (user, password) = credentials(headers).ok_or(Refusal::Unknown)?;
        let is_known = users.0.contains_key(&user);
        let (hash, more) = users.hash_for(&user).ok_or(Refusal::Unknown)?;
        let hash = Arc::clone(&hash.text);
        let tag = self.tag(&[user.as_bytes(), hash.as_bytes(), &password]);
        if is_known && lock(&self.remembered).contains(&tag) {
            return Ok(());
        }
        let of_peer = self.waiting_of_peer.of(peer, MAX_WAITING_OF_PEER);
        let (Ok(_place), Ok(_place_of_peer)) = (self.waiting.try_acquire(), of_peer.try_acquire())
        else {
            return Err(Refusal::Busy);
        };
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let right = spawn_blocking(move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false);
            for cost in more.filter(|_| !right) {
                let _ = black_box(bcrypt::hash_with_salt("", cost, [0; 16]));
            }
            // Held until here, even if the request is gone by then.
            drop(turn);
            right
        });
        if !right.await.unwrap_or(false) || !is_known {
            return Err(Refusal::Unknown);
        }
        let mut remembered = lock(&self.remembered);
        if !remembered.contains(&tag) {
            remembered.push_back(tag);
        }
        if remembered.len() > MAX_REMEMBERED {
            remembered.pop_front();
        }
        Ok(())
    }

    /// Returns a tag that identifies exactly these parts.
    fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.secret);
        for part in parts {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// Returns the name and the password of a request (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut bytes = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = bytes.iter().position(|&byte| byte == b':')?;
    let password = bytes.split_off(colon + 1);
    bytes.pop();
    Some((String::from_utf8(bytes).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_a_wrong_password_does_not_depend_on_the_name() {
        let hashes = [("a", 5), ("b", 7), ("c", 4)].map(|(user, cost)| {
            let hash = bcrypt::hash("secret", cost).unwrap();
            (user.to_owned(), hash)
        });
        let users = Users::new(hashes.into()).unwrap();
        for user in ["a", "b", "c", "unknown"] {
            let (hash, more) = users.hash_for(user).unwrap();
            let time = |cost: u32| 1 << cost;
            let all = time(hash.cost) + more.map(time).sum::<u32>();
            assert_eq!(all, time(7), "{user}");
        }
    }
}
