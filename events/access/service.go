package access

import (
	"strconv"

	"chandler/events"
)

// reads is what a service needs of the broker beyond what the declarations tell: its own calls, events,
// timers and buckets are derived.
type reads struct {
	// durable are its readers of streams, by stream.
	durable map[string][]string
	// follows are streams that it reads by readers of the moment, whose names the client makes up: it may
	// then use any reader of that stream.
	follows []string
	// looks are streams whose stored messages it gets one by one or in batches, without readers.
	looks   []string
	hears   []events.Declaration     // events that are heard as they are told, beside what is read of a stream
	asks    []events.CallDeclaration // of other services
	writes  []string                 // what it stores that is no event
	empties []string                 // streams that it shortens
}

// readers of each service. The names are those in the service's own code; its tests run with these rights.
func readers() map[string]reads {
	return map[string]reads{
		"scheduling": {
			durable: map[string][]string{events.StreamEvents: {"scheduling"}, events.StreamTimers: {"scheduling"}},
			hears:   []events.Declaration{events.Heartbeat.Declaration, events.DeploymentProgressed.Declaration},
			// It checks an order against the package that the order names; see there when it asks.
			asks: []events.CallDeclaration{events.ContentList.CallDeclaration},
		},
		"content": {
			durable: map[string][]string{events.StreamEvents: {"content"}},
		},
		"execution": {
			durable: map[string][]string{events.StreamEvents: {"execution"}, events.StreamTimers: {"execution-timers"}, events.StreamStatus: partitioned("execution-")},
			// Its state is a fold over these; nobody else has readers there.
			follows: []string{events.StreamStatus, events.StreamJobs, events.StreamFold, events.StreamHistory},
			writes:  []string{events.FoldSubject("*"), events.HistorySubject("*")},
			empties: []string{events.StreamFold}, // up to its newest snapshot
		},
		"credentials": {
			// Jobs that ended and what agents said of leases.
			durable: map[string][]string{events.StreamEvents: {"credentials"}},
			// Whether a job was offered and has not ended, before it lends an account for it.
			looks: []string{events.StreamJobs, events.StreamStatus, events.StreamEvents},
		},
	}
}

func partitioned(prefix string) []string {
	names := make([]string, events.Partitions)
	for i := range names {
		names[i] = prefix + strconv.Itoa(i)
	}
	return names
}

// grantService lets a service answer its calls, publish its events, keep its timers and buckets, and read
// what it reads.
func grantService(g *grant, name string) {
	needs := readers()[name]
	grantAnswers(g, name)
	for _, d := range events.Types() {
		switch d.Sender {
		case name:
			g.pub(published(d, "*"))
		case events.EveryService:
			g.pub(d.Subject(name))
		}
	}
	for stream, readers := range needs.durable {
		for _, reader := range readers {
			grantDurable(g, stream, reader)
		}
		g.pub(events.DeadLetterSubject(stream))
		if stream == events.StreamTimers {
			g.pub(events.TimerSubject(name, ">"))
		}
	}
	for _, stream := range needs.follows {
		grantFollow(g, stream)
		grantGet(g, stream)
	}
	for _, stream := range needs.looks {
		grantGet(g, stream)
	}
	for _, b := range events.Buckets() {
		if b.Owner == name {
			grantBucket(g, b)
		}
	}
	for _, d := range needs.hears {
		g.sub(d.Subject("*"))
	}
	for _, c := range needs.asks {
		g.pub(c.Subject(itsKey, name))
	}
	g.pub(needs.writes...)
	for _, stream := range needs.empties {
		g.pub(jsAPI + "STREAM.PURGE." + stream)
	}
	g.sub(inboxes + name + ".>")
}

// grantAnswers lets a service be found, asked and heard. Answers go to inboxes of its own account and to
// the broker's stand-ins for those of others, and nowhere else.
func grantAnswers(g *grant, name string) {
	for _, c := range events.Calls() {
		if c.Service == name {
			g.sub(c.Filter())
		}
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		g.sub("$SRV."+verb, "$SRV."+verb+"."+name, "$SRV."+verb+"."+name+".*")
	}
	g.pub(inboxes+">", "_R_.>")
}

// grantDurable lets one durable reader be made, changed and used, and the stream's messages be looked up.
func grantDurable(g *grant, stream, reader string) {
	at := stream + "." + reader
	g.pub(jsAPI+"CONSUMER.INFO."+at, jsAPI+"CONSUMER.CREATE."+at, jsAPI+"CONSUMER.CREATE."+at+".>", jsAPI+"CONSUMER.MSG.NEXT."+at, jsAPI+"CONSUMER.UNPIN."+at)
	g.pub("$JS.ACK." + at + ".>")
	grantGet(g, stream)
}

func grantGet(g *grant, stream string) {
	g.pub(jsAPI+"STREAM.INFO."+stream, jsAPI+"DIRECT.GET."+stream, jsAPI+"DIRECT.GET."+stream+".>")
}

// grantFollow lets readers of the moment be made, used and given up.
func grantFollow(g *grant, stream string) {
	g.pub(jsAPI+"STREAM.INFO."+stream, jsAPI+"CONSUMER.CREATE."+stream, jsAPI+"CONSUMER.CREATE."+stream+".>", jsAPI+"CONSUMER.INFO."+stream+".*",
		jsAPI+"CONSUMER.MSG.NEXT."+stream+".*", jsAPI+"CONSUMER.DELETE."+stream+".*")
}

// grantBucket lets the owner of a bucket read, watch, write and shorten it.
func grantBucket(g *grant, b events.Bucket) {
	stream, prefix := bucketStream(b), "$KV."
	if b.Objects {
		prefix = "$O."
	}
	g.pub(prefix+b.Name+".>", jsAPI+"STREAM.PURGE."+stream)
	grantGet(g, stream)
	grantFollow(g, stream)
	g.pub("$JS.FC." + stream + ".>") // a watch tells the broker how it keeps up
}
