package events_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestEveryTypeIsDeclaredSoThatItCanTravel(t *testing.T) {
	streams := map[string]events.Stream{}
	for _, s := range events.Streams() {
		streams[s.Name] = s
	}
	services := []string{"agent", "the broker", events.EveryService, "content", "credentials", "execution", "scheduling"}
	for _, d := range events.Types() {
		t.Run(strings.TrimPrefix(d.Name, events.TypePrefix), func(t *testing.T) {
			if d.Summary == "" || strings.HasSuffix(d.Summary, ".") {
				t.Errorf("summary %q: say in words, without a full stop, what happened", d.Summary)
			}
			if !slices.Contains(services, d.Sender) {
				t.Errorf("sender %q is none of %v", d.Sender, services)
			}
			if !strings.HasPrefix(d.Pattern, events.Prefix) {
				t.Errorf("pattern %s does not begin with %s", d.Pattern, events.Prefix)
			}
			if before, token, ok := strings.Cut(d.Pattern, "<"); ok && (!strings.HasSuffix(before, ".") || strings.Count(token, ">") != 1 || !strings.HasSuffix(token, ">")) {
				t.Errorf("pattern %s does not end in one variable token", d.Pattern)
			}
			if d.Stream == "" {
				for _, s := range streams {
					if takes(s, d.Subject("x")) {
						t.Errorf("it is not to be stored, but %s takes %s", s.Name, d.Subject("x"))
					}
				}
				return
			}
			if s, ok := streams[d.Stream]; !ok || !takes(s, d.Subject("x")) {
				t.Errorf("stream %q does not take %s", d.Stream, d.Subject("x"))
			}
		})
	}
}

// takes says whether a stream stores a subject.
func takes(s events.Stream, subject string) bool {
	return slices.ContainsFunc(s.Subjects, func(pattern string) bool {
		p, tokens := strings.Split(pattern, "."), strings.Split(subject, ".")
		for i := range p {
			if p[i] == ">" {
				return i < len(tokens)
			}
			if i >= len(tokens) || p[i] != "*" && p[i] != tokens[i] {
				return false
			}
		}
		return len(p) == len(tokens)
	})
}

func TestNoTwoStreamsTakeTheSameSubject(t *testing.T) {
	for _, d := range events.Types() {
		var taking []string
		for _, s := range events.Streams() {
			if takes(s, d.Subject("x")) {
				taking = append(taking, s.Name)
			}
		}
		if len(taking) > 1 {
			t.Errorf("%s is taken by %v", d.Subject("x"), taking)
		}
	}
}

func TestStreamsAndBucketsSayWhatIsLostAndWhoseTheyAre(t *testing.T) {
	for _, s := range events.Streams() {
		if s.Description == "" || s.Lost == "" || len(s.Subjects) == 0 {
			t.Errorf("stream %s: description, subjects and what is lost must be told", s.Name)
		}
		if s.Schedules && s.MaxAge != 0 {
			t.Errorf("stream %s: the broker removes schedules older than MaxAge without a word", s.Name)
		}
	}
	for _, b := range events.Buckets() {
		if b.Owner == "" || b.Description == "" {
			t.Errorf("bucket %s: owner and description must be told", b.Name)
		}
	}
}

func TestThePartitionsOfTheStreamAreThoseOfTheConstant(t *testing.T) {
	for _, s := range events.Streams() {
		if want := fmt.Sprintf("{{partition(%d,2)}}", events.Partitions); s.Name == events.StreamStatus && !strings.HasSuffix(s.TransformTo, want) {
			t.Errorf("STATUS is rewritten to %s, want it to end in %s", s.TransformTo, want)
		}
	}
}

func TestTypesAreFoundByTheirNames(t *testing.T) {
	for _, name := range []string{"dev.chandler.job.succeeded.v1", "job.succeeded"} {
		if d, ok := events.TypeNamed(name); !ok || d.Name != events.JobSucceeded.Name {
			t.Errorf("%s is found as %q", name, d.Name)
		}
	}
	for _, name := range []string{"", "job", "dev.chandler.job.succeeded", "dev.chandler.job.succeeded.v2"} {
		if d, ok := events.TypeNamed(name); ok {
			t.Errorf("%q is found as %s", name, d.Name)
		}
	}
}

func TestANewerVersionIsToldFromAnUnknownType(t *testing.T) {
	tests := map[string]bool{
		"dev.chandler.job.succeeded.v2":  true,
		"dev.chandler.job.succeeded.v10": true,
		"dev.chandler.job.succeeded.v1":  false, // it is known
		"dev.chandler.job.succeeded":     false,
		"dev.chandler.job.hibernated.v1": false,
		"com.example.thing.v2":           false,
		"":                               false,
	}
	for name, want := range tests {
		if got := events.KnownInOtherVersion(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestDerivedIdsTellPartsApart(t *testing.T) {
	ids := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"1:a"}, {"a1:b"}} {
		id := events.DeriveID("x", parts...)
		if len(id) != 26 || events.ValidToken(id) != nil {
			t.Errorf("%q: id %q is not 26 characters of a token", parts, id)
		}
		if other, taken := ids[id]; taken {
			t.Errorf("%q and %q have one id", parts, other)
		}
		ids[id] = parts
	}
	if events.DeriveID("x", "a") == events.DeriveID("y", "a") {
		t.Error("ids of two kinds are equal")
	}
}

func TestIdsDoNotChangeBetweenVersions(t *testing.T) {
	// Journals and streams hold these: should one change, every job would be new to its agent.
	got := map[string]string{
		"job":   events.JobID("hello-everywhere", 1, "amrqzcs6aqpwdvsh3k7b2", 0, ""),
		"agent": events.AgentID(make([]byte, ed25519.PublicKeySize)),
	}
	want := map[string]string{"job": "gmm2qqirg34oyvdruke5sszg4p", "agent": "aeavi4yd57oaq465cnuo"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNamesAreCheckedBeforeTheyReachASubject(t *testing.T) {
	long := strings.Repeat("a", 64)
	tests := []struct {
		check     func(string) error
		good, bad []string
	}{
		{events.ValidToken, []string{"a", "0", "ws-0412", "a_b", long}, []string{"", "*", ">", "a.b", "A", "a b", "-a", "_a", "ä", "a\n", long + "a"}},
		{events.ValidAgent, []string{"amrqzcs6aqpwdvsh3k7b2", "abcdefgh"}, []string{"", "short", "*", "abc-defgh", "ABCDEFGH", strings.Repeat("a", 33)}},
		{events.ValidPackage, []string{"hello", "libstdc++6", "a.b"}, []string{"", ".a", "a/b", "a*", "A"}},
		{events.ValidVersion, []string{"2.10-3", "1:2.0~rc1+b2"}, []string{"", " 1", "-1", "1/2", "1\n"}},
		{events.ValidDigest, []string{events.DigestOf(nil)}, []string{"", "e3b0", strings.ToUpper(events.DigestOf(nil))}},
	}
	for _, tt := range tests {
		for _, s := range tt.good {
			if err := tt.check(s); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		for _, s := range tt.bad {
			if tt.check(s) == nil {
				t.Errorf("%q is taken", s)
			}
		}
	}
	if got := events.Token("libstdc++.x"); events.ValidToken(got) != nil {
		t.Errorf("token %q of a package is none", got)
	}
}

func TestOnlyASourceOfAnAgentNamesOne(t *testing.T) {
	tests := map[string]string{
		events.AgentSource("abcdefgh"):      "abcdefgh",
		events.ServiceSource("execution"):   "",
		"/agents/*":                         "",
		"/agents/abcdefgh/x":                "",
		"https://example/agents/abcdefghij": "",
		"":                                  "",
	}
	for source, want := range tests {
		if got := events.SourceAgent(source); got != want {
			t.Errorf("%q names agent %q, want %q", source, got, want)
		}
	}
}

func TestAStatusWhosePartsDisagreeIsInvalid(t *testing.T) {
	good := events.JobAccepted.Example.(events.JobStatus)
	if err := good.Validate(); err != nil {
		t.Fatalf("the example: %v", err)
	}
	tests := map[string]func(*events.JobStatus){
		"another agent's job":  func(s *events.JobStatus) { s.Agent = "bbbbbbbbbbbbbbbbbbbb" },
		"another deployment":   func(s *events.JobStatus) { s.Deployment = "other" },
		"another revision":     func(s *events.JobStatus) { s.Revision++ },
		"another occurrence":   func(s *events.JobStatus) { s.Occurrence = 1 },
		"another user":         func(s *events.JobStatus) { s.User = "alice" },
		"no transition":        func(s *events.JobStatus) { s.Transition = 0 },
		"no attempt":           func(s *events.JobStatus) { s.Attempt = 0 },
		"a deployment with *":  func(s *events.JobStatus) { s.Deployment = "*" },
		"an agent that is all": func(s *events.JobStatus) { s.Agent = "*" },
	}
	for name, change := range tests {
		s := good
		change(&s)
		if s.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestOnlyTheEndOfASilentJobMayHaveNoTransition(t *testing.T) {
	status := events.JobFinished.Example.(events.JobEnd).JobStatus
	unheard, foreign := status, status
	unheard.Transition = 0
	foreign.Agent = "bbbbbbbbbbbbbbbbbbbb"
	tests := map[string]struct {
		end  events.JobEnd
		good bool
	}{
		"the agent said how it ended":           {events.JobEnd{JobStatus: status}, true},
		"the agent fell silent on the way":      {events.JobEnd{JobStatus: status, Silent: true}, true},
		"the agent never spoke":                 {events.JobEnd{JobStatus: unheard, Silent: true}, true},
		"it ended without a transition":         {events.JobEnd{JobStatus: unheard}, false},
		"another agent's job, silent or not":    {events.JobEnd{JobStatus: foreign, Silent: true}, false},
		"another agent's job that had its word": {events.JobEnd{JobStatus: foreign}, false},
	}
	for name, test := range tests {
		if err := test.end.Validate(); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSubjectsThatAreNoEventTypesAreStored(t *testing.T) {
	for stream, subject := range map[string]string{
		events.StreamHistory:    events.HistorySubject("agent0001"),
		events.StreamTimers:     events.TimerSubject("scheduling", "hello", "start"),
		events.StreamFold:       events.FoldSubject("3"),
		events.StreamDeadLetter: events.DeadLetterSubject("STATUS"),
	} {
		for _, s := range events.Streams() {
			if takes(s, subject) != (s.Name == stream) {
				t.Errorf("%s takes %s: %v", s.Name, subject, takes(s, subject))
			}
		}
	}
}

func TestTheLongestListsFitIntoOneAnswerToAnAgent(t *testing.T) {
	answer := events.OrderAnswer{Envelope: make([]byte, 64<<10)}
	for i := range events.MaxListed {
		answer.Include = append(answer.Include, events.AgentID(fmt.Append(nil, i)))
	}
	value, err := json.Marshal(answer)
	if err != nil || len(value) > 512<<10 {
		t.Errorf("an order of 64 KiB with %d ids takes %d bytes: %v", events.MaxListed, len(value), err)
	}
}

func TestEveryStateButOfferedAndOtherHasItsEvent(t *testing.T) {
	for _, state := range events.States() {
		kind, ok := events.StatusType(state)
		if want := state != events.Offered && state != events.OtherState; ok != want {
			t.Errorf("%s: has an event: %v, want %v", state, ok, want)
		}
		if ok && kind.Example.(events.JobStatus).State != state {
			t.Errorf("%s: the example of %s is in state %s", state, kind.Name, kind.Example.(events.JobStatus).State)
		}
		if state.Terminal() && state.BeforeRunning() {
			t.Errorf("%s is both terminal and before running", state)
		}
	}
}

func TestEveryReasonSaysWhatToDo(t *testing.T) {
	for _, r := range events.Reasons() {
		info := r.Info()
		if info.Advice == "" || !r.Known() {
			t.Errorf("%s has no advice", r)
		}
		switch info.Class {
		case events.Permanent, events.Transient, events.Busy:
		default:
			t.Errorf("%s is of class %q", r, info.Class)
		}
	}
	if got := events.Reason("moon_phase").Info(); got != events.OtherReason.Info() {
		t.Errorf("an unknown reason is described as %v", got)
	}
}

func TestPausesGrowToTheirLimitAndEnd(t *testing.T) {
	tests := map[events.Class][]time.Duration{
		events.Permanent: nil,
		events.Transient: {time.Minute, 4 * time.Minute, 16 * time.Minute, time.Hour},
		events.Busy:      slices.Repeat([]time.Duration{2 * time.Hour}, 10),
	}
	for class, want := range tests {
		var got []time.Duration
		for attempt := 1; ; attempt++ {
			pause, again := class.Retry().Pause(attempt)
			if !again {
				break
			}
			got = append(got, pause)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", class, diff)
		}
	}
}

func TestCommandsAndDurationsAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{`["dpkg","-i","a b.deb"]`, `"msiexec /i <x> && y"`} {
		var c events.Command
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		back, err := c.MarshalJSON()
		if err != nil || string(back) != text {
			t.Errorf("%s is written as %s (%v)", text, back, err)
		}
	}
	var d events.Duration
	if err := json.Unmarshal([]byte(`"1h30m"`), &d); err != nil || d != events.Duration(90*time.Minute) {
		t.Errorf("1h30m is read as %v (%v)", d, err)
	}
	for _, bad := range []string{`"-1s"`, `"1"`, `""`, `90`} {
		if json.Unmarshal([]byte(bad), &d) == nil {
			t.Errorf("duration %s is taken", bad)
		}
	}
}

func TestEveryCallIsDeclaredSoThatItCanBeGranted(t *testing.T) {
	for _, c := range events.Calls() {
		if events.ValidToken(c.Service) != nil || events.ValidToken(c.Verb) != nil || c.Summary == "" {
			t.Errorf("call %s.%s: names must be tokens, and say what it does", c.Service, c.Verb)
		}
		want := "chandler.rpc." + c.Service + "." + c.Verb
		if c.By.Person() {
			want += ".k"
		}
		if got := c.Subject("k", "x"); got != want+".x" {
			t.Errorf("subject %s, want %s.x", got, want)
		}
		if !slices.Contains([]events.Caller{events.ByEnrolling, events.ByAgent, events.ByViewer, events.ByDeployer, events.ByAdministrator}, c.By) {
			t.Errorf("call %s.%s is by %q", c.Service, c.Verb, c.By)
		}
	}
}
