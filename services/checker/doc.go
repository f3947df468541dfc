// Package checker says whether a run of the fleet kept what Chandler promises: nothing lost, nothing run twice, and every
// witness tells the same. A witness is somebody who knows a part of what happened and learnt it in another way than the
// others: the streams, the services' answers, the agents' journals, what the broker acknowledged to agents, and the record of
// whoever ran the programs. [Collect] hears the streams and the services, the caller adds the agents' side, and [Check], which is
// pure, holds them against each other:
//
//	released   scheduling handed every agent over once in a revision, and EVENTS holds all that it says it released
//	offers     each released agent is offered one job, once for each attempt, and nobody else; a further attempt only after one
//	           that is to be tried again
//	statuses   what a job says is numbered from 1 without holes once copies are left out, under the id that it states; attempts
//	           never fall, and nothing follows an end but a higher attempt
//	acks       every status that was acknowledged is stored
//	journals   the journal's last word is the last in STATUS, and in execution
//	runs       no attempt ran twice, nothing ran that did not say so, and each end is what the last run gives
//	ends       every end is in EVENTS and in HISTORY once, and no other
//
// # What is no violation
//
// Everything is at least once: copies of one offer, status or end, under one id, count as one. Statuses may be stored in
// another order than they were said, since one may have to be sent again; their numbers tell the order. A job may end as
// cancelled, expired, rejected or will_not_rerun without a run, and an administrator's retry begins a higher attempt. A stopped,
// replaced or removed revision may be offered to nobody. An order that stands does not end, its occurrences and the jobs of single
// users are opened by agents without an offer. A silent end may come before the agent's own.
//
// Streams forget: by age, by size, and when they are lost and made anew. [Evidence.Since] says from when on each witness is whole;
// nothing is reported because of something that may lie before that.
//
// # Under failure
//
// Check fails never. It takes memory in proportion to the evidence, of which Collect keeps a few hundred bytes for each
// message. The run must be over: what is under way between two witnesses looks like a loss. Who cannot be sure collects and
// checks again until nothing is reported, or for as long as it is patient. An error of Collect means that there is no evidence, not
// that something is wrong.
package checker
