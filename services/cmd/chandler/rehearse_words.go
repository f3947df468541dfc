package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/rehearsal"
)

// rehearsed is what deployment rehearse tells.
type rehearsed struct {
	Deployment string `json:"deployment"`
	Program    string `json:"program"`
	Collection string `json:"collection"`
	Seed       uint64 `json:"seed"`
	rehearsal.Timeline
}

// writeRehearsal tells a timeline; csv is of the machines, or of the hours.
func (a *app) writeRehearsal(cmd *cobra.Command, r rehearsed, stories bool) error {
	w := cmd.OutOrStdout()
	agents := r.Agents
	slices.SortStableFunc(agents, func(x, y rehearsal.AgentStory) int { return byTime(x.Offered, y.Offered) })
	if !stories {
		r.Agents = nil
	}
	switch {
	case !people(a.output) && a.output != formCSV:
		return writeData(w, a.output, r)
	case a.output == formCSV && stories:
		return a.storyColumns().write(w, a.output, agents)
	case a.output == formCSV:
		return a.hourColumns().write(w, a.output, r.Hours)
	}
	note(w, "%s: %s to %s, played from %s (seed %d)", r.Deployment, r.Program, r.Collection, a.longTime(r.Start), r.Seed)
	for _, part := range []func() error{
		func() error { return a.tellPhases(cmd, r.Timeline) },
		func() error { return section(cmd, a, a.hourColumns(), r.Hours) },
		func() error { return section(cmd, a, siteColumns(), siteSums(a, r.Sites)) },
		func() error { return section(cmd, a, neverColumns(), r.Never) },
		func() error {
			if !stories {
				return nil
			}
			return section(cmd, a, a.storyColumns(), agents)
		},
	} {
		if err := part(); err != nil {
			return err
		}
	}
	note(w, "")
	for _, line := range append(a.endLines(r.Timeline), r.Supposes...) {
		note(w, "%s", line)
	}
	return nil
}

// byTime orders times, those that never come last.
func byTime(x, y time.Time) int {
	switch {
	case x.IsZero() == y.IsZero():
		return x.Compare(y)
	case x.IsZero():
		return 1
	}
	return -1
}

// section is one table of several; an empty one is left out.
func section[T any](cmd *cobra.Command, a *app, l listing[T], rows []T) error {
	if len(rows) == 0 {
		return nil
	}
	note(cmd.OutOrStdout(), "")
	return l.write(cmd.OutOrStdout(), a.output, rows)
}

// tellPhases shows the phases, and under them what halted them and what they wait for.
func (a *app) tellPhases(cmd *cobra.Command, line rehearsal.Timeline) error {
	type v = rehearsal.Phase
	counted := func(n func(events.WaveCounts) int64) func(v) any {
		return func(p v) any { return countCell(n(p.Counts)) }
	}
	phases := listing[v]{columns: []column[v]{
		{"PHASE", false, func(p v) any { return cellOr(p.Name, "everybody") }},
		{"MACHINES", false, func(p v) any { return countCell(p.Size) }},
		{"OPENS", false, func(p v) any { return cellOr(a.longTime(p.Opened), "never") }},
		{"ENOUGH SUCCEEDED", false, func(p v) any { return a.longTime(p.Met) }},
		{"DONE", false, func(p v) any { return a.longTime(p.Left) }},
		{"SUCCEEDED", false, counted(func(c events.WaveCounts) int64 { return c.Succeeded })},
		{"FAILED", false, counted(func(c events.WaveCounts) int64 { return c.Failed })},
		{"NOT APPLICABLE", true, counted(func(c events.WaveCounts) int64 { return c.NotApplicable })},
		{"WAITING", false, counted(func(c events.WaveCounts) int64 { return c.Waiting })},
		{"SILENT", false, counted(func(c events.WaveCounts) int64 { return c.Silent })},
	}}
	if err := section(cmd, a, phases, line.Phases); err != nil {
		return err
	}
	for _, p := range line.Phases {
		for _, h := range p.Halts {
			resumed := "and stays halted"
			if !h.Resumed.IsZero() {
				resumed = "resumed " + a.longTime(h.Resumed)
			}
			note(cmd.OutOrStdout(), "halts %s: %s; %s", a.longTime(h.At), h.Says, resumed)
		}
		if p.Left.IsZero() && p.Says != "" && len(p.Halts) == 0 {
			note(cmd.OutOrStdout(), "phase %s does not get further: %s", cellOr(p.Name, "everybody"), p.Says)
		}
	}
	return nil
}

// endLines say how it ends.
func (a *app) endLines(line rehearsal.Timeline) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if line.Done.IsZero() {
		say("It is not done by the end of the time played.")
	} else {
		say("Done %s, %s after its beginning.", a.longTime(line.Done), line.Done.Sub(line.Start).Round(time.Minute))
	}
	if line.Ended != "" {
		say("It was not played to the end: %s.", line.Ended)
	}
	var totals []string
	total := 0
	for _, state := range slices.Sorted(maps.Keys(line.Totals)) {
		total += line.Totals[state]
		totals = append(totals, fmt.Sprintf("%s %s", strings.ReplaceAll(string(state), "_", " "), count(line.Totals[state])))
	}
	say("In the end, of %s: %s. At most %s in flight; %s tried again.", plural(total, "machine", "machines"), strings.Join(totals, ", "), plural(line.Most, "job", "jobs"), plural(line.Retries, "job was", "jobs were"))
	for _, reason := range slices.Sorted(maps.Keys(line.Identity)) {
		say("%s would fail for want of an identity or account: %s: %s.", plural(line.Identity[reason], "machine", "machines"), reason, reason.Info().Advice)
	}
	if line.RolledBack > 0 {
		say("The halt takes it back on %s.", plural(line.RolledBack, "machine", "machines"))
	}
	if line.Faults > 0 {
		say("On %s the target cannot be evaluated: %s.", plural(line.Faults, "machine", "machines"), line.Fault)
	}
	return lines
}

func (a *app) hourColumns() listing[rehearsal.Hour] {
	type v = rehearsal.Hour
	return listing[v]{columns: []column[v]{
		{"HOUR", false, func(h v) any { return a.timeCell(h.At) }},
		{"OFFERED", false, func(h v) any { return countCell(h.Offered) }},
		{"STARTED", false, func(h v) any { return countCell(h.Started) }},
		{"SUCCEEDED", false, func(h v) any { return countCell(h.Succeeded) }},
		{"FAILED", false, func(h v) any { return countCell(h.Failed) }},
		{"DOWNLOADED", false, func(h v) any { return sizeCell(h.Bytes) }},
	}}
}

// siteSum is what a site downloads in all, and in the hour in which it does most.
type siteSum struct {
	site        string
	total, most int64
	at          cell
}

// siteSums are those of every site, of its hours.
func siteSums(a *app, hours []rehearsal.SiteHour) (sums []siteSum) {
	for _, h := range hours {
		if len(sums) == 0 || sums[len(sums)-1].site != h.Site {
			sums = append(sums, siteSum{site: h.Site})
		}
		s := &sums[len(sums)-1]
		if s.total += h.Bytes; h.Bytes > s.most {
			s.most, s.at = h.Bytes, a.timeCell(h.At)
		}
	}
	return sums
}

func siteColumns() listing[siteSum] {
	type v = siteSum
	return listing[v]{columns: []column[v]{
		{"SITE", false, func(s v) any { return cellOr(s.site, "none") }},
		{"DOWNLOADED", false, func(s v) any { return sizeCell(s.total) }},
		{"MOST IN AN HOUR", false, func(s v) any { return sizeCell(s.most) }},
		{"WHEN", false, func(s v) any { return s.at }},
	}}
}

func neverColumns() listing[rehearsal.Never] {
	type v = rehearsal.Never
	return listing[v]{columns: []column[v]{
		{"NOTHING RUNS ON", false, func(n v) any { return plural(n.Agents, "machine", "machines") }},
		{"BECAUSE", false, func(n v) any { return n.Why }},
		{"SUCH AS", false, func(n v) any { return strings.Join(n.Hosts, ", ") }},
	}}
}

func (a *app) storyColumns() listing[rehearsal.AgentStory] {
	type v = rehearsal.AgentStory
	return listing[v]{columns: []column[v]{
		{"HOST", false, func(s v) any { return s.Host }},
		{"AGENT", true, func(s v) any { return s.Agent }},
		{"SITE", false, func(s v) any { return s.Site }},
		{"PHASE", false, func(s v) any { return phaseNumber(s.Phase) }},
		{"OFFERED", false, func(s v) any { return a.timeCell(s.Offered) }},
		{"STARTED", false, func(s v) any { return a.timeCell(s.Started) }},
		{"ENDED", false, func(s v) any { return a.timeCell(s.Ended) }},
		{"STATE", false, func(s v) any { return s.State }},
		{"REASON", false, func(s v) any { return s.Reason }},
		{"WAITS FOR", true, func(s v) any { return s.Waits }},
		{"RUNS", true, func(s v) any { return fmt.Sprint(s.Runs) }},
	}}
}

// phaseNumber counts phases as people do.
func phaseNumber(index int) string {
	if index < 0 {
		return ""
	}
	return fmt.Sprint(index + 1)
}
