package bus

import (
	"errors"
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
