package scheduling

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestWhoCountsAsInFlight(t *testing.T) {
	released := func(sites map[string]int) *releaseLog {
		l := &releaseLog{batches: map[int]batch{}, phases: map[int]tally{}, sites: sites}
		for _, n := range sites {
			for range n {
				l.released = l.released.set(l.released.count(), true)
			}
		}
		return l
	}
	site := func(offered, inFlight int64) events.SiteCounts {
		return events.SiteCounts{Offered: offered, InFlight: inFlight}
	}
	for name, c := range map[string]struct {
		record deploymentRecord
		log    *releaseLog
		known  progress
		want   flight
	}{
		"nobody was handed over":            {want: flight{0, map[string]int{}}},
		"execution has not said anything":   {log: released(map[string]int{"oslo": 3, "": 2}), want: flight{5, map[string]int{"oslo": 3, "": 2}}},
		"it said something of one revision": {log: released(map[string]int{"oslo": 3}), known: progress{revision: 7, waves: []events.WaveCounts{{Offered: 3}}}, want: flight{3, map[string]int{"oslo": 3}}},
		"some have ended": {log: released(map[string]int{"oslo": 3}), known: progress{revision: 1, waves: []events.WaveCounts{{Offered: 3, InFlight: 1}}, sites: map[string]events.SiteCounts{"oslo": site(3, 1)}},
			want: flight{1, map[string]int{"oslo": 1}}},
		"a batch is on its way": {log: released(map[string]int{"oslo": 5}), known: progress{revision: 1, waves: []events.WaveCounts{{Offered: 3, InFlight: 1}}, sites: map[string]events.SiteCounts{"oslo": site(3, 1)}},
			want: flight{3, map[string]int{"oslo": 3}}},
		"a machine has moved": {log: released(map[string]int{"oslo": 3}), known: progress{revision: 1, waves: []events.WaveCounts{{Offered: 3, InFlight: 2}}, sites: map[string]events.SiteCounts{"oslo": site(2, 1), "bergen": site(1, 1)}},
			want: flight{2, map[string]int{"oslo": 1, "bergen": 1}}},
		"execution knows more than this replica": {log: released(map[string]int{"oslo": 1}), known: progress{revision: 1, waves: []events.WaveCounts{{Offered: 4, InFlight: 4}}, sites: map[string]events.SiteCounts{"oslo": site(4, 4)}},
			want: flight{4, map[string]int{"oslo": 4}}},
		"stopped: who is unknown is never offered it": {record: deploymentRecord{Stopped: true}, log: released(map[string]int{"oslo": 5}), known: progress{revision: 1, waves: []events.WaveCounts{{Offered: 3, InFlight: 1}}, sites: map[string]events.SiteCounts{"oslo": site(3, 1)}},
			want: flight{1, map[string]int{"oslo": 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := offline()
			c.record.Deployment, c.record.Revision = "hello", 1
			s.deployments["hello"] = &deployment{record: c.record}
			if c.log != nil {
				s.releases["hello"] = map[uint64]*releaseLog{1: c.log}
			}
			s.progressed["hello"] = c.known
			for range 2 { // also when it is counted again
				s.recount("hello")
			}
			if diff := cmp.Diff(c.want, s.inFlight, cmp.AllowUnexported(flight{})); diff != "" {
				t.Error(diff)
			}
			delete(s.deployments, "hello")
			s.recount("hello")
			if s.inFlight.total != 0 || len(s.inFlight.sites) != 0 {
				t.Errorf("a deployment that is gone has left %+v", s.inFlight)
			}
		})
	}
}
