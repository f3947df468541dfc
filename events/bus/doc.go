// Package bus carries the events of package events over NATS JetStream as CloudEvents 1.0, and requests
// between programs and services over NATS micro services.
//
// Publishing: [Publish] stores one event and waits for the store, [Bus.NewPipeline] stores many with a
// bounded window, [PublishBatch] stores up to a thousand all or none, [Send] says what nobody stores.
// Reading: [Bus.Handle] and [HandleBatch] read durable consumers and own the one rule of what is
// acknowledged, tried again, or put aside; [Bus.Follow] and [Bus.Replay] serve readers that keep their own
// position; [Bus.Browse] is for people and leaves nothing at the broker; [Listen] hears what is not stored.
// [Bus.Provision] makes the streams and buckets. [Bus.Serve] answers requests and audits what people ask,
// [Request] makes them.
//
// # Under failure
//
// Everything that blocks survives a broker that goes away and comes back, and goes on where it was. An
// event is delivered at least once: handlers are idempotent. No event is lost silently: one that cannot be
// handled is kept on the dead-letter stream before it is terminated. No publication waits for ever: the
// store's answer has a time limit, and publishing again is harmless because ids are derived from what
// events state. A request is answered also where its record cannot be stored: the record is then in the log
// at once, and in EVENTS as soon as it takes it, unless the process ends before.
//
// # Trust
//
// The broker lets a client publish only on subjects of its own, but a client may name any reply subject,
// and so make the broker send what it stored to wherever the broker may publish. Therefore an event counts
// only if its subject, its source and its data name the same sender, if its data satisfies its schema, and
// if it carries none of the headers by which the broker marks what it sends on; the readers with a position
// of their own pass over such messages too. Services answer only to inboxes, and no request with such a
// header. An agent, whose offers the broker does send on, checks with [Republished] that they are those.
package bus
