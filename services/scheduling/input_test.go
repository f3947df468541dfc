package scheduling

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/order"
)

func TestOrdersThatAreRefused(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Fleet = "demo" })
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.deploy(func(o *order.Order) { o.Deployment, o.Revision = "taken", 3 })
	gone := events.DigestOf([]byte("gone"))
	for _, kind := range []events.Type[events.PackageNotice]{events.PackagePublished, events.PackageRemoved} {
		publish(s, events.ServiceSource("content"), kind, "gone", events.PackageNotice{Package: "gone", Version: "1", Digest: gone, Programs: []string{"install"}, By: "ada"})
	}
	s.eventually("the removed package is known as removed", func() bool { r.mu.RLock(); defer r.mu.RUnlock(); return r.packages[gone].Removed })

	past := time.Now().Add(-time.Hour)
	ids := names(events.MaxListed + 1)
	for name, c := range map[string]struct {
		change           func(*order.Order)
		envelope         []byte
		include, exclude []string
		want             error
		says             string
	}{
		"not an envelope":     {envelope: []byte("hello"), want: bus.ErrBadRequest, says: "not a DSSE envelope"},
		"nothing":             {envelope: []byte{}, want: bus.ErrBadRequest, says: "not a DSSE envelope"},
		"of another kind":     {envelope: []byte(`{"payloadType":"text/plain","payload":"","signatures":[]}`), want: bus.ErrBadRequest, says: "text/plain"},
		"too large":           {envelope: []byte(strings.Repeat(" ", order.MaxSize+1)), want: bus.ErrBadRequest, says: "larger than"},
		"an unknown package":  {change: func(o *order.Order) { o.Manifest = events.DigestOf(nil) }, want: bus.ErrNotFound, says: "is not published"},
		"a removed package":   {change: func(o *order.Order) { o.Package, o.Version, o.Manifest = "gone", "1", gone }, want: bus.ErrNotFound, says: "was removed"},
		"another's manifest":  {change: func(o *order.Order) { o.Version = "2.11" }, want: bus.ErrBadRequest, says: "its manifest is that of hello 2.10-3"},
		"an unknown program":  {change: func(o *order.Order) { o.Program = "upgrade" }, want: bus.ErrNotFound, says: "it has install, remove"},
		"unknown collection":  {change: func(o *order.Order) { o.Collection = "nobody" }, want: bus.ErrNotFound, says: `no collection "nobody"`},
		"a changed condition": {change: func(o *order.Order) { o.Expression = `agent.os == "windows"` }, want: bus.ErrConflict, says: "is not the one that was signed"},
		"a list that the collection has not": {change: func(o *order.Order) { o.IncludeDigest = order.ListDigest([]string{"agent001"}) }, include: []string{"agent001"},
			want: bus.ErrConflict, says: "is not the one that was signed"},
		"lists that were not signed": {include: []string{"agent001"}, want: bus.ErrBadRequest, says: "not those that were signed"},
		"a list of no agents":        {exclude: []string{"agent.*"}, want: bus.ErrBadRequest, says: `"agent.*"`},
		"lists that are too long":    {include: ids[:events.MaxListed/2], exclude: ids[:events.MaxListed/2+1], want: bus.ErrBadRequest, says: "at most 15000"},
		"a revision that is used":    {change: func(o *order.Order) { o.Deployment, o.Revision = "taken", 3 }, want: bus.ErrConflict, says: "sign revision 4"},
		"a revision that goes back":  {change: func(o *order.Order) { o.Deployment, o.Revision = "taken", 2 }, want: bus.ErrConflict, says: "sign revision 4"},
		"already expired":            {change: func(o *order.Order) { o.Issued = past.Add(-time.Hour); o.Expires = new(calendar.At(past)) }, want: bus.ErrBadRequest, says: "expired at"},
		"no longer valid":            {change: func(o *order.Order) { o.Issued = past.Add(-time.Hour); o.NotAfter = past }, want: bus.ErrBadRequest, says: "was valid until"},
		"issued in the future":       {change: func(o *order.Order) { o.Issued = time.Now().Add(time.Hour) }, want: bus.ErrBadRequest, says: "compare the clocks"},
		"another fleet's":            {change: func(o *order.Order) { o.Fleet = "other" }, want: bus.ErrBadRequest, says: "for fleet other"},
	} {
		t.Run(name, func(t *testing.T) {
			envelope := c.envelope
			if envelope == nil {
				o := s.order(func(o *order.Order) { o.Deployment = "refused" })
				if c.change != nil {
					c.change(&o)
				}
				envelope = s.sign(o)
			}
			_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Include: c.include, Exclude: c.exclude})
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("error %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
	if _, err := ask(s, events.DeploymentShow, events.Named{Name: "refused"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("something of a refused order was kept: %v", err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	s := newStory(t)
	s.running()
	long := strings.Repeat("x", maxText+1)
	for name, c := range map[string]struct {
		ask  func() error
		want error
		says string
	}{
		"a collection whose expression does not compile, with the position": {
			func() error {
				_, err := ask(s, events.CollectionSet, events.Collection{Name: "x", Expression: `agent.os = "linux"`})
				return err
			},
			bus.ErrBadRequest, "1:10"},
		"a preview of a fact that does not exist": {
			func() error {
				_, err := ask(s, events.CollectionPreview, events.Collection{Expression: `agent.nose == "x"`})
				return err
			},
			bus.ErrBadRequest, "nose"},
		"a collection whose name is no token": {
			func() error { _, err := ask(s, events.CollectionSet, events.Collection{Name: "a.*"}); return err },
			bus.ErrBadRequest, `"a.*"`},
		"a collection that includes what is no agent": {
			func() error {
				_, err := ask(s, events.CollectionSet, events.Collection{Name: "x", Include: []string{"host one"}})
				return err
			},
			bus.ErrBadRequest, `"host one"`},
		"a comment that is too long": {
			func() error {
				_, err := ask(s, events.CollectionSet, events.Collection{Name: "x", Comment: long})
				return err
			},
			bus.ErrBadRequest, "longer than"},
		"a collection that is not there": {
			func() error { _, err := ask(s, events.CollectionShow, events.Named{Name: "absent"}); return err },
			bus.ErrNotFound, "chandler collection ls"},
		"removing a collection that is not there": {
			func() error { _, err := ask(s, events.CollectionRemove, events.Named{Name: "absent"}); return err },
			bus.ErrNotFound, "absent"},
		"a deployment that is not there": {
			func() error { _, err := ask(s, events.DeploymentPause, events.Named{Name: "absent"}); return err },
			bus.ErrNotFound, "chandler deployment ls"},
		"a deployment whose name is no token": {
			func() error { _, err := ask(s, events.DeploymentShow, events.Named{Name: ">"}); return err },
			bus.ErrBadRequest, `">"`},
		"a reason that is too long": {
			func() error { _, err := ask(s, events.DeploymentPause, events.Named{Name: "x", Why: long}); return err },
			bus.ErrBadRequest, "longer than"},
		"an agent whose id is none": {
			func() error { _, err := ask(s, events.Why, events.WhyRequest{Agent: "*"}); return err },
			bus.ErrBadRequest, `"*"`},
		"an agent that never reported": {
			func() error { _, err := ask(s, events.Why, events.WhyRequest{Agent: "agent404"}); return err },
			bus.ErrNotFound, "chandler agent ls"},
		"a condition on agents that does not compile": {
			func() error { _, err := ask(s, events.AgentList, events.AgentQuery{Where: "agent."}); return err },
			bus.ErrBadRequest, "1:7"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.ask()
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("error %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
}

func TestCollections(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002", windows), facts("agent003", func(f *events.Facts) { f.OSVersion = "twelve" }))
	s.knows(r, 3)
	v := must(s, events.CollectionSet, events.Collection{Name: "new", Expression: ` int(agent.os_version.split(".")[0]) >= 12 `, Include: []string{"agent002", "agent002"}})
	if diff := cmp.Diff([]string{"agent001", "agent002"}, v.Members); diff != "" || v.Faults != 1 || !strings.Contains(v.Fault, "agent003") || v.By != "ada" {
		t.Errorf("set: %+v\n%s", v, diff)
	}
	if diff := cmp.Diff(v, must(s, events.CollectionShow, events.Named{Name: "new"})); diff != "" {
		t.Errorf("shown: %s", diff)
	}
	if diff := cmp.Diff([]events.CollectionView{v}, must(s, events.CollectionList, events.Nothing{}).Collections); diff != "" {
		t.Errorf("listed: %s", diff)
	}
	must(s, events.CollectionSet, events.Collection{Name: "new", Expression: v.Expression, Include: v.Include}) // nothing new: no event
	nobody := must(s, events.CollectionSet, events.Collection{Name: "nobody"})
	if len(nobody.Members) != 0 || nobody.Members == nil {
		t.Errorf("an empty collection has members %v", nobody.Members)
	}
	must(s, events.CollectionRemove, events.Named{Name: "new"})
	if all := must(s, events.CollectionList, events.Nothing{}).Collections; len(all) != 1 {
		t.Errorf("listed after the removal: %+v", all)
	}
	s.toldOf("new", "changed", "removed")
	s.eventually("the removed one is forgotten", func() bool {
		_, revision, err := load[collectionRecord](t.Context(), r.collectionStore, "new")
		return err == nil && revision == 0
	})
	must(s, events.CollectionSet, events.Collection{Name: "new"}) // it can be made again
	s.toldOf("new", "changed", "removed", "changed")
}

// toldOf waits until exactly these events about a collection are stored, in this order.
func (s *story) toldOf(name string, want ...string) {
	s.t.Helper()
	var got []string
	s.eventually(fmt.Sprintf("%s is told of as %v", name, want), func() bool {
		got = nil
		if _, err := s.admin.Replay(s.t.Context(), events.StreamEvents, "chandler.event.collection.*."+name, 1, func(m jetstream.Msg) error {
			got = append(got, strings.Split(m.Subject(), ".")[3])
			return nil
		}); err != nil {
			s.t.Fatal(err)
		}
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		s.t.Error(diff)
	}
}

func TestACollectionThatDeploymentsNameIsKeptAndTellsWhichAreOutdated(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002", windows))
	s.knows(r, 2)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.deploy()
	if _, err := ask(s, events.CollectionRemove, events.Named{Name: "linux"}); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "hello") {
		t.Errorf("removed: %v", err)
	}
	v := must(s, events.CollectionSet, events.Collection{Name: "linux", Expression: `agent.os != "darwin"`})
	if diff := cmp.Diff([]string{"hello"}, v.Outdated); diff != "" || len(v.Members) != 2 {
		t.Errorf("changed: %+v", v)
	}
	says := must(s, events.Why, events.WhyRequest{Agent: "agent002", Deployment: "hello"}).Answers[0]
	if says.Member || !strings.Contains(says.Says, `agent.os == "linux" is false: agent.os is "windows"`) || !strings.Contains(says.Says, "sign the deployment again") {
		t.Errorf("why: %+v", says)
	}
	s.released(1, nil) // the signed target counts
	if v := must(s, events.CollectionSet, linuxMachines()); len(v.Outdated) != 0 {
		t.Errorf("changed back: %v", v.Outdated)
	}
}

func TestAgentsAreListedAlsoWhenTwoShareAName(t *testing.T) {
	s := newStory(t)
	r := s.running()
	twin := func(f *events.Facts) { f.Hostname = "WS-1" }
	s.report(facts("agent002", twin), facts("agent001", twin), facts("agent003", windows))
	s.knows(r, 3)
	for name, c := range map[string]struct {
		query events.AgentQuery
		want  []string
	}{
		"everybody, by host name":        {events.AgentQuery{}, []string{"agent001", "agent002", "agent003"}},
		"by host name, whatever case":    {events.AgentQuery{Name: "ws-1"}, []string{"agent001", "agent002"}},
		"by id":                          {events.AgentQuery{Name: "agent003"}, []string{"agent003"}},
		"by a condition":                 {events.AgentQuery{Where: `agent.os == "windows"`}, []string{"agent003"}},
		"nobody":                         {events.AgentQuery{Name: "absent"}, []string{}},
		"both the name and a condition":  {events.AgentQuery{Name: "ws-1", Where: `agent.os == "windows"`}, []string{}},
		"a condition that fails on some": {events.AgentQuery{Where: `agent.tags[0] == "office"`}, []string{"agent001", "agent002", "agent003"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := []string{}
			for _, a := range must(s, events.AgentList, c.query).Agents {
				got = append(got, a.Facts.ID)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := ask(s, events.AgentList, events.AgentQuery{Where: `agent.tags[7] == "x"`}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a condition that fails on all: %v", err)
	}
	before := must(s, events.AgentList, events.AgentQuery{Name: "agent003"}).Agents[0].LastSeen
	s.clock.advance(time.Minute)
	agent := s.bus(events.AgentSource("agent003"))
	if err := bus.Send(t.Context(), agent, events.Heartbeat, events.Event[events.HeartbeatNote]{ID: "beat", Subject: "agent003", Data: events.HeartbeatNote{Agent: "agent003", At: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	s.eventually("the heartbeat is seen", func() bool {
		return must(s, events.AgentList, events.AgentQuery{Name: "agent003"}).Agents[0].LastSeen.After(before.Add(30 * time.Second))
	})
}

func TestReportsThatAreTooLargeGoToTheDeadLetters(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001", func(f *events.Facts) { f.Tags = []string{strings.Repeat("x", maxFacts)} }), facts("agent002"))
	s.knows(r, 1)
	if _, ok := r.fleet.get("agent001"); ok {
		t.Error("the large report was kept")
	}
	s.eventually("a dead letter", func() bool {
		stream, err := s.admin.JetStream().Stream(t.Context(), events.StreamDeadLetter)
		return err == nil && stream.CachedInfo().State.Msgs == 1
	})
}
