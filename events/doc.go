// Package events is the contract between the parts of Chandler: data only, no I/O.
//
// The pipeline, told as the events it is made of:
//
//	PackagePublished      content      a package's manifest and bytes are stored
//	CollectionChanged     scheduling   who is meant by a name
//	DeploymentCreated     scheduling   a signed order was accepted: what, for whom, as whom, until when
//	DeploymentReleased    scheduling   these agents, now (in batches)
//	JobOffered            execution    one agent is offered one order (stream JOBS, republished to the agent)
//	JobAccepted … JobSucceeded, JobFailed
//	                      agent        one event per transition, all of the shape [JobStatus]
//	JobLogged             agent        the lines of execmgr.log, in chunks
//	JobFinished           execution    one job has come to its end
//	DeploymentProgressed  execution    the counts of a deployment changed
//
// Beside it: [AgentReported] (facts), [PackageRemoved], [DeploymentPaused] and its kin, [FreezeSet],
// [AccountSet], [LeaseDenied]; who belongs to the fleet ([AgentEnrolled] and its kin, [TokenCreated],
// [UserAdded]), whose orders agents obey ([TrustChanged]) and what administrators did ([AuditRecorded]);
// and, on core NATS and never stored, [Beacon], [Heartbeat] and [TrustAnnounced].
//
// One declaration (declare in this package) gives an event its type name, subject, stream, schema, example
// and AsyncAPI entry. To add an event: one struct and one declare line in the file of its noun, then
// `go test ./events -update`, which derives schemas/ and asyncapi.yaml again.
//
// Compatibility: fields are added, never changed; a change is a new type ending in v2. Readers ignore
// fields they do not know, and treat values of an enumeration they do not know as "other".
package events
