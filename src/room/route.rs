//! Who receives a publication.

use crate::room::registry::ParticipantKey;

/// One edge: a slot of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub receiver: ParticipantKey,
    /// Index into the receiver's slots.
    pub slot: u16,
}

/// The receivers of one publication, in no particular order.
#[derive(Clone, Debug, Default)]
pub struct Routes(Vec<Route>);

impl Routes {
    pub fn add(&mut self, route: Route) {
        if !self.0.contains(&route) {
            self.0.push(route);
        }
    }

    pub fn remove(&mut self, route: Route) {
        self.0.retain(|other| *other != route);
    }

    #[must_use]
    pub fn as_slice(&self) -> &[Route] {
        &self.0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
