package rehearsal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"chandler/events"
)

// shownHosts is how many machines are named for each reason why nothing runs.
const shownHosts = 5

// told is what happened.
func (s *play) told() Timeline {
	t := s.line
	t.End, t.Totals, t.Agents = s.now, map[events.State]int{}, make([]AgentStory, 0, len(s.agents))
	for _, p := range s.phases {
		p.line.Counts = p.counts
		t.Phases = append(t.Phases, p.line)
	}
	never := map[string]*Never{}
	for i := range s.agents {
		a := &s.agents[i]
		if a.story.Runs == 0 {
			a.story.Never = s.never(a)
			n := never[a.story.Never]
			if n == nil {
				n = &Never{Why: a.story.Never}
				never[n.Why] = n
			}
			if n.Agents++; n.Agents <= shownHosts {
				n.Hosts = append(n.Hosts, a.story.Host)
			}
		}
		if s.in.Identity != nil {
			if reason := s.in.Identity(a.machine.Facts); reason != events.NoReason {
				if t.Identity == nil {
					t.Identity = map[events.Reason]int{}
				}
				t.Identity[reason]++
			}
		}
		t.Totals[a.story.State]++
		t.Agents = append(t.Agents, a.story)
	}
	for _, why := range slices.Sorted(maps.Keys(never)) {
		t.Never = append(t.Never, *never[why])
	}
	slices.SortStableFunc(t.Never, func(a, b Never) int { return b.Agents - a.Agents })
	for _, at := range slices.Sorted(maps.Keys(s.hours)) {
		t.Hours = append(t.Hours, *s.hours[at])
	}
	for at, n := range s.loads {
		t.Sites = append(t.Sites, SiteHour{at.site, time.Unix(at.hour, 0).UTC(), n})
	}
	slices.SortFunc(t.Sites, func(a, b SiteHour) int { return cmp.Or(cmp.Compare(a.Site, b.Site), a.At.Compare(b.At)) })
	t.Supposes = s.supposes()
	return t
}

// never says why nothing ran on a machine.
func (s *play) never(a *agent) string {
	switch a.story.State {
	case NotReleased:
		return s.notReleased(a)
	case events.Offered:
		if a.machine.there(s.in.Recorded, a.story.Offered).IsZero() {
			return "it is never there: not heard since " + a.machine.LastSeen.UTC().Format(time.DateOnly)
		}
		if s.in.Outcome(a.who.ID, 1).Silent {
			return "it says nothing after the offer, as a share of machines does"
		}
		return "it is not there any more in the time played"
	case events.Waiting:
		return s.waits(a)
	case events.Expired:
		return "the deployment ends before the program could start"
	}
	return fmt.Sprintf("%s: %s: %s", a.story.State, a.story.Reason, a.story.Reason.Info().Advice)
}

func (s *play) notReleased(a *agent) string {
	i := a.story.Phase
	switch {
	case i < 0 && s.frozen:
		return "the rollout is halted before its phase opens"
	case i < 0 && s.opened < len(s.phases) && s.phases[s.opened].line.Says != "":
		return "its phase, or one before it, holds nobody and does not open"
	case i < 0 && s.opened < len(s.phases):
		return "its phase does not open in the time played"
	case i < 0:
		return "it is in none of the phases"
	case !s.now.Before(s.order.Over()):
		return "the deployment ends before it is handed over"
	case s.frozen:
		return "the rollout is halted before it is handed over"
	}
	return "limits of jobs in flight hold it back for all of the time played"
}

func (s *play) waits(a *agent) string {
	switch a.story.Waits {
	case events.WaitMaintenanceWindow:
		return "no maintenance window opens in the time played while it is there"
	case events.WaitFreeze:
		return "the rollout is halted before it starts"
	}
	if len(s.order.Assignments) == 0 {
		return "it waits for somebody at the machine to start it"
	}
	return "its time does not come in the time played while it is there"
}

// supposes are the suppositions that matter to what was played.
func (s *play) supposes() []string {
	all := []string{
		"Machines are there in the hours of the week in which they were heard of late; those without such hours always, unless they were not heard for 14 days: then never.",
		"Downloads take no time, and machines that start a program stay on until it ends; restarts are not played.",
		"Nothing else is in flight, and nobody joins, leaves or changes collections.",
	}
	if n := s.in.Heard.hours(); n > 0 && n < hoursOfWeek {
		all = append(all, fmt.Sprintf("Any machine at all was heard in %d of the %d hours of a week: in the others every one of them is taken to be there.", n, hoursOfWeek))
	}
	for _, a := range s.order.Assignments {
		if a.Logon || a.Logoff {
			all = append(all, "Users log on or off as soon as a program waits for that, once: who is logged on is not recorded.")
			break
		}
	}
	if len(s.order.First) > 0 {
		all = append(all, "What runs first takes no time, and succeeds.")
	}
	if s.in.Program.LogonNeeded() != events.LogonAny {
		all = append(all, "Wherever the program needs somebody, or nobody, to be logged on, that is so.")
	}
	return all
}
