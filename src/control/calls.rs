//! The service as the API sees it.

use super::api::Operations;
use super::application::counts::Called;
use super::metrics::{self, Calls, Extra};
use super::queues::{Dead, QueueFacts};
use super::service::{Failure, Service};
use crate::shard::command::{ConnectionFacts, Members, Person, Stats, Who};
use crate::shard::record::Record;
use crate::shard::revocation::{Restoration, Revocation, TokenRevocation};

impl Operations for Service {
    async fn publish(
        &self,
        pipe: &str,
        event: &str,
        data: &str,
        sender: Option<&str>,
        count: bool,
    ) -> Result<Option<u64>, Failure> {
        Service::publish(self, pipe, event, data, sender, count).await
    }

    async fn push(&self, to: Who, event: &str, data: &str) -> Result<u64, Failure> {
        Service::push(self, to, event, data).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<u64, Failure> {
        Service::revoke(self, revocation).await
    }

    async fn restore(&self, restoration: Restoration) -> Result<u64, Failure> {
        Service::restore(self, restoration).await
    }

    async fn revoke_tokens(&self, revocation: TokenRevocation) -> Result<u64, Failure> {
        Service::revoke_tokens(self, revocation).await
    }

    async fn disconnect(&self, who: Who, reconnect: bool) -> Result<u64, Failure> {
        Service::disconnect(self, who, reconnect).await
    }

    async fn unsubscribe(&self, who: Who, pipe: &str) -> Result<u64, Failure> {
        Service::unsubscribe(self, who, pipe).await
    }

    async fn connections(
        &self,
        person: Option<Person>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<ConnectionFacts>, Option<String>), Failure> {
        Service::connections(self, person, after, limit).await
    }

    async fn pipes(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(Box<str>, u64)>, Option<String>), Failure> {
        Service::pipes(self, after, limit).await
    }

    async fn members(&self, pipe: &str) -> Result<Members, Failure> {
        Service::members(self, pipe).await
    }

    fn queues(&self) -> Vec<QueueFacts> {
        Service::queues(self)
    }

    async fn dead(&self, queue: &str, after: Option<u64>, limit: usize) -> Result<(Vec<Dead>, Option<u64>), Failure> {
        Service::dead(self, queue, after, limit).await
    }

    async fn retry(&self, queue: &str, id: Option<&str>) -> Result<u64, Failure> {
        Service::retry(self, queue, id).await
    }

    async fn stats(&self) -> Result<Vec<Stats>, Failure> {
        Service::stats(self).await
    }

    async fn metrics(&self) -> Result<String, Failure> {
        let workers = Service::stats(self).await?;
        let audit = self.audit();
        let (upgrades_waiting, calls_waiting) = self.application().waiting();
        let numbers = Called::ALL.into_iter().zip(self.application().counts().numbers());
        let extra = Extra {
            revocations: self.shared().revocations.count() as u64,
            audit_written: audit.written(),
            audit_dropped: audit.dropped(),
            audit_failures: audit.failures(),
            ready: self.shared().is_ready(),
            connections_limit: u64::from(self.shared().settings().config.limits.connections),
            started_ms: self.started_ms(),
            calls: numbers.map(|(called, numbers)| Calls { called, numbers }).collect(),
            upgrades_waiting: upgrades_waiting as u64,
            calls_waiting: calls_waiting as u64,
            queues: Service::queues(self),
            now_ms: Service::now_ms(),
        };
        Ok(metrics::render(&workers, &extra))
    }

    fn record(&self, record: Record) {
        Service::record(self, record);
    }

    fn is_ready(&self) -> bool {
        self.shared().is_ready()
    }

    fn queue_bytes(&self) -> usize {
        self.shared().settings().config.limits.queue_bytes as usize
    }
}
