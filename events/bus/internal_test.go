package bus

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

func TestPausesGrowWithinTheirBounds(t *testing.T) {
	tests := []struct {
		times uint64
		want  time.Duration
	}{{0, time.Second}, {1, time.Second}, {2, 2 * time.Second}, {5, 16 * time.Second}, {9, 256 * time.Second}, {10, 5 * time.Minute}, {31, 5 * time.Minute}, {1 << 63, 5 * time.Minute}}
	for _, tt := range tests {
		low, mid, high := growing(tt.times, time.Second, 5*time.Minute, 0), growing(tt.times, time.Second, 5*time.Minute, 0.5), growing(tt.times, time.Second, 5*time.Minute, 0.999)
		if mid != tt.want || low != tt.want*3/4 || high <= mid || high > tt.want*5/4 {
			t.Errorf("after %d: %s, %s, %s around %s", tt.times, low, mid, high, tt.want)
		}
	}
}

func TestWhatDoesNotFitIsCutAndSaysSo(t *testing.T) {
	const limit = 64 << 10
	m := &nats.Msg{Subject: "chandler.job.running.x.1", Header: nats.Header{"X": {strings.Repeat("x", 20<<10)}, HeaderReason: {"forged"}}}
	for _, size := range []int{1, limit / 2, limit - 25<<10, limit - 21<<10, limit, 4 * limit} {
		m.Data = []byte(strings.Repeat("y", size))
		d := &delivery{msg: m}
		letter := deadLetterMessage(Consumer{Stream: events.StreamStatus, Name: "test"}, d, reasonSchema, errors.New(strings.Repeat("ä", 4096)), limit)
		if letter.Size() > limit {
			t.Errorf("letter of %d bytes for a message of %d", letter.Size(), m.Size())
		}
		if got := letter.Header.Get(HeaderReason); got != reasonSchema {
			t.Errorf("reason %q", got)
		}
		whole := len(letter.Data) == size && letter.Header.Get("X") != ""
		if cut := letter.Header.Get(HeaderTruncated) != ""; cut == whole {
			t.Errorf("data of %d bytes: %d are kept, said to be cut: %v", size, len(letter.Data), cut)
		}
	}
}

func TestSubjectsOfATypeAreToldFromOthers(t *testing.T) {
	tests := []struct {
		d             events.Declaration
		subject, want string
		ok            bool
	}{
		{events.JobRunning.Declaration, "chandler.job.running.abcdefgh", "abcdefgh", true},
		{events.JobRunning.Declaration, "chandler.job.running.abcdefgh.7", "abcdefgh", true},
		{events.JobRunning.Declaration, "chandler.job.running.abcdefgh.8", "", false}, // there are 8 partitions
		{events.JobRunning.Declaration, "chandler.job.running.abcdefgh.-1", "", false},
		{events.JobRunning.Declaration, "chandler.job.running.abcdefgh.1.2", "", false},
		{events.JobRunning.Declaration, "chandler.job.failed.abcdefgh", "", false},
		{events.JobRunning.Declaration, "chandler.job.running.", "", false},
		{events.CollectionChanged.Declaration, "chandler.event.collection.changed.a.1", "", false},
		{events.Beacon.Declaration, "chandler.beacon", "", true},
		{events.Beacon.Declaration, "chandler.beacon.x", "", false},
	}
	for _, tt := range tests {
		got, ok := subjectToken(tt.d, tt.subject)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s as %s: %q %v, want %q %v", tt.subject, tt.d.Name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestPatternsMatchAsTheBrokersDo(t *testing.T) {
	tests := []struct {
		subject, pattern string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.*", true}, {"a.b", "a.>", true}, {"a.b", ">", true}, {"a.*", "a.*", true}, {"a.b.>", "a.>", true},
		{"a", "a.>", false}, {"a.b", "a", false}, {"a", "a.b", false}, {"a.b.c", "a.*", false}, {"a.>", "a.*", false}, {"a.>", "a.b", false}, {"a.*", "a.b", false},
	}
	for _, tt := range tests {
		if got := subjectMatches(tt.subject, tt.pattern); got != tt.want {
			t.Errorf("%s in %s: %v", tt.subject, tt.pattern, got)
		}
	}
}

func TestEverySchemaCanBeCompiled(t *testing.T) {
	catalogue, err := known()
	if err != nil || len(catalogue) != len(events.Types()) {
		t.Fatalf("%d types are known: %v", len(catalogue), err)
	}
	for name, e := range catalogue {
		if schema, err := e.schema(); err != nil || schema == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryEventAboutAnAgentNamesItInItsData(t *testing.T) {
	for _, d := range events.Types() {
		if aboutAgent(d) && agentField(d) == nil {
			t.Errorf("%s is about an agent, and its data has neither agent nor facts.id to hold against the subject", d.Name)
		}
	}
}

func TestPartsOfAnAnswerComeInTheirOrder(t *testing.T) {
	part := func(parts, n string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{headerParts: {parts}, headerPart: {n}}}
	}
	if n, err := partsOf(&nats.Msg{}, 1); n != 1 || err != nil {
		t.Errorf("an answer in one: %d %v", n, err)
	}
	if n, err := partsOf(part("3", "2"), 2); n != 3 || err != nil {
		t.Errorf("the second of three: %d %v", n, err)
	}
	for _, bad := range []*nats.Msg{part("3", "3"), part("x", "2"), part("0", "2"), part("1000000", "2"), {}} {
		if n, err := partsOf(bad, 2); err == nil {
			t.Errorf("%v is taken as one of %d", bad.Header, n)
		}
	}
}

func TestOnePatternCoversAllThatItsFiltersMatch(t *testing.T) {
	tests := []struct {
		filters []string
		want    string
	}{
		{[]string{"a.b"}, "a.b"},
		{[]string{"a.b", "a.c"}, "a.*"},
		{[]string{"a.b.c", "a.x.c", "a.b.y"}, "a.*.*"},
		{[]string{"a.b", "a.b.c"}, "a.>"},
		{[]string{"a.b.c", "a.b"}, "a.>"},
		{[]string{"a", "a.b"}, ">"},
		{[]string{"a.b.c.d", "a.>"}, "a.>"},
		{[]string{"a.>", "a.b.c"}, "a.>"},
		{[]string{">", "a.b"}, ">"},
		{[]string{"a.*", "a.b"}, "a.*"},
		{[]string{"a.b", "c.d.e", "a"}, ">"},
	}
	for _, tt := range tests {
		got := cover(tt.filters)
		if got != tt.want {
			t.Errorf("%v is covered by %s, want %s", tt.filters, got, tt.want)
		}
		for _, f := range tt.filters {
			if !subjectMatches(f, got) {
				t.Errorf("%s does not cover %s", got, f)
			}
		}
	}
}

func TestAReaderIsWokenByWhatIsPublishedNotByWhatIsStored(t *testing.T) {
	tests := []struct {
		stream  string
		filters []string
		want    []string
	}{
		{events.StreamLogs, []string{"chandler.log.a1"}, []string{"chandler.log.a1"}},
		{events.StreamLogs, nil, []string{"chandler.log.*"}},
		{events.StreamStatus, []string{"chandler.job.failed.*.*", "chandler.job.running.a1.7", "chandler.job.none.*.*"}, []string{"chandler.job.failed.*", "chandler.job.running.a1"}},
		{events.StreamEvents, []string{"chandler.event.freeze.>"}, []string{"chandler.event.freeze.lifted.*", "chandler.event.freeze.set.*"}},
		{events.StreamEvents, []string{"chandler.event.freeze", "chandler.event.freeze.set.x.y"}, nil},
		{events.StreamHistory, nil, nil},
	}
	for _, tt := range tests {
		if got := published(tt.stream, tt.filters); !slices.Equal(got, tt.want) {
			t.Errorf("%s %v: %v, want %v", tt.stream, tt.filters, got, tt.want)
		}
	}
}

func TestABatchWithAGapIsNotedAndReadAgain(t *testing.T) {
	answer := func(sequence, previous string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Nats-Stream": {"LOGS"}, "Nats-Subject": {"chandler.log.a"}, "Nats-Sequence": {sequence}, "Nats-Time-Stamp": {"2026-12-01T08:00:00Z"},
			"Nats-Num-Pending": {"1"}, "Nats-Last-Sequence": {previous}}}
	}
	word := func(code, last string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Status": {code}, "Nats-Num-Pending": {"0"}, "Nats-Last-Sequence": {last}}}
	}
	c := cursor{stale: true}
	if last, err := c.take(nil, answer("3", "0"), "LOGS", 0); err != nil || last != 3 || c.next != 4 {
		t.Fatalf("%d %v, next %d", last, err, c.next)
	}
	for name, bad := range map[string]*nats.Msg{"one is missing": answer("6", "5"), "one comes again": answer("3", "3"), "no number": answer("x", "3"), "no header": {Header: nats.Header{"Nats-Stream": {"LOGS"}}}} {
		if last, err := c.take(nil, bad, "LOGS", 3); err == nil || last != 3 || c.next != 4 {
			t.Errorf("%s: %d %v, next %d", name, last, err, c.next)
		}
	}
	if _, err := c.take(nil, answer("5", "3"), "STATUS", 3); err == nil {
		t.Error("a message of another stream was taken")
	}
	if err := c.close(word("204", "5"), 9, 3); err == nil || !c.stale {
		t.Errorf("an end behind a message that did not come: %v", err)
	}
	if err := c.close(word("204", "3"), 9, 3); err != nil || c.stale || c.dry != 9 {
		t.Errorf("the end: %v, dry up to %d", err, c.dry)
	}
	if err := c.close(word("404", ""), 12, 0); err != nil || c.dry != 12 {
		t.Errorf("nothing more: %v, dry up to %d", err, c.dry)
	}
	for code, final := range map[string]bool{"408": true, "412": true, "503": false, "": false, "500": false} {
		err := c.close(word(code, "0"), 0, 0)
		if _, ended := errors.AsType[failed](err); err == nil || ended != final {
			t.Errorf("word %q: %v", code, err)
		}
	}
}

func TestOnlyWhatWasRepublishedBehindItsStoreIsTakenForIt(t *testing.T) {
	h := func(change ...func(nats.Header)) *nats.Msg {
		m := &nats.Msg{Header: nats.Header{"Nats-Stream": {"JOBS"}, "Nats-Subject": {"chandler.offer.a1"}, "Nats-Sequence": {"1"}}}
		for _, c := range change {
			c(m.Header)
		}
		return m
	}
	if err := Republished(h(), "JOBS", "chandler.offer.a1"); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]*nats.Msg{
		"said directly":          {},
		"of another stream":      h(func(h nats.Header) { h.Set("Nats-Stream", "EVENTS") }),
		"of another subject":     h(func(h nats.Header) { h.Set("Nats-Subject", "chandler.offer.a2") }),
		"stored with its header": h(func(h nats.Header) { h.Add("Nats-Stream", "EVENTS") }),
		"without a sequence":     h(func(h nats.Header) { h.Del("Nats-Sequence") }),
		"with two sequences":     h(func(h nats.Header) { h.Add("Nats-Sequence", "2") }),
	} {
		if err := Republished(m, "JOBS", "chandler.offer.a1"); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzDirectGet(f *testing.F) {
	f.Add("JOBS", "chandler.offer.a1", "1", "2026-12-01T08:00:00Z", "0", "x")
	f.Fuzz(func(t *testing.T, stream, subject, sequence, at, last, forged string) {
		m := &nats.Msg{Header: nats.Header{"Nats-Stream": {forged, stream}, "Nats-Subject": {subject}, "Nats-Sequence": {forged, sequence}, "Nats-Time-Stamp": {at},
			"Nats-Num-Pending": {last}, "Nats-Last-Sequence": {last}, "X": {forged}}}
		d, _, err := fromDirectGet(nil, m, true)
		if err != nil {
			return
		}
		if d.Subject() != subject || d.meta.Stream != stream || len(d.Headers()["Nats-Stream"]) != 1 || d.Headers().Get("Nats-Stream") != forged || len(m.Header["Nats-Stream"]) != 2 {
			t.Errorf("%v became %v", m.Header, d.Headers())
		}
	})
}
