package fleet

import "sync/atomic"

// Stats counts what the members did since New. Syncs, Refused and what was dropped come from the metrics of the real inbox
// and reporter, which all members share.
type Stats struct {
	Connected       int
	Current         int   // of those: execution has answered them since they connected last
	Offers          int64 // taken in
	Statuses        int64 // acknowledged by the broker
	Started         int64 // programs
	Ended           int64 // programs
	Syncs           int64 // that execution answered
	SyncsLater      int64 // that execution put off
	SyncsFailed     int64 // without an answer, also for want of a broker
	Reconnects      int64
	Refused         int64 // messages that do not name the agent or cannot be read
	BytesIn         int64 // on the wire, of all connections; with TLS what it makes of them
	BytesOut        int64
	LogLinesDropped int64
	Dropped         int64 // messages that came faster than the journal took them; a sync fetched them
}

// counts are what the metrics do not hold.
type counts struct {
	offers, statuses, started, ended, reconnects, bytesIn, bytesOut atomic.Int64
}

// Stats of all members together.
func (f *Fleet) Stats() Stats {
	connected, current := f.there()
	return Stats{
		Connected: connected, Current: current,
		Offers: f.counts.offers.Load(), Statuses: f.counts.statuses.Load(), Started: f.counts.started.Load(), Ended: f.counts.ended.Load(),
		Reconnects: f.counts.reconnects.Load(), BytesIn: f.counts.bytesIn.Load(), BytesOut: f.counts.bytesOut.Load(),
		Syncs: f.counted("chandler_inbox_syncs_total", "done"), SyncsLater: f.counted("chandler_inbox_syncs_total", "later"),
		SyncsFailed: f.counted("chandler_inbox_syncs_total", "failed") + f.counted("chandler_inbox_syncs_total", "away"),
		Refused:     f.counted("chandler_inbox_refused_total", ""), Dropped: f.counted("chandler_inbox_dropped_total", ""), LogLinesDropped: f.counted("chandler_report_dropped_log_lines_total", ""),
	}
}

// counted is the value of a counter, of one value of its only label where it has one.
func (f *Fleet) counted(name, label string) (n int64) {
	families, err := f.registry.Gather()
	if err != nil {
		return 0 // only collectors of our own are registered, which agree with each other
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if labels := m.GetLabel(); label == "" || len(labels) == 1 && labels[0].GetValue() == label {
				n += int64(m.GetCounter().GetValue())
			}
		}
	}
	return n
}
