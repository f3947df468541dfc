package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

// mostAudited is how many records one listing shows, the newest.
const mostAudited = 10_000

// auditFlags are those of events audit, as typed.
type auditFlags struct {
	by, verb, since string
	refused, follow bool
}

// auditRow is one record of the audit with the event that says it.
type auditRow struct {
	ID    string `json:"id"`
	Trace string `json:"trace,omitempty"`
	events.AuditRecord
}

func eventsAudit(a *app) *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use: "audit", Short: "Show who asked for what, and what became of it", Args: cobra.NoArgs,
		Long: `Shows what people asked the services to change, and what they were denied, oldest first: who asked and
with which key, what the request was about, its outcome, and the digests of what it changed, before and
after. Looking at things is not recorded unless it is denied. What the broker itself refuses, because the
caller's role may not ask for it, reaches no service: the broker's log has it.`,
		Example: `  chandler events audit --refused --since 7d
  chandler events audit --by ada --verb deployment_create -o json`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			return a.audit(cmd, c, f)
		}),
	}
	cmd.Flags().StringVar(&f.by, "by", "", "only what this caller asked: a name, or a key or its beginning")
	cmd.Flags().StringVar(&f.verb, "verb", "", "only this request: deployment_create, or scheduling.deployment_create")
	cmd.Flags().StringVar(&f.since, "since", "24h", "begin with what was asked within this span (7d), or after this time")
	cmd.Flags().BoolVar(&f.refused, "refused", false, "only what was refused or failed")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what comes, until interrupted")
	_ = cmd.RegisterFlagCompletionFunc("verb", cobra.FixedCompletions(auditedVerbs(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func auditedVerbs() []string {
	var verbs []string
	for _, c := range events.Calls() {
		if c.Changes() {
			verbs = append(verbs, c.Service+"."+c.Verb)
		}
	}
	return verbs
}

func (a *app) audit(cmd *cobra.Command, c *client, f auditFlags) error {
	if f.follow {
		if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
			return err
		}
	}
	since, err := a.parseSince(f.since)
	if err != nil {
		return fmt.Errorf("--since: %w", err)
	}
	var rows []auditRow
	left := 0
	show := func(r auditRow) error {
		if len(rows) == 2*mostAudited { // the newest are kept
			rows = append(rows[:0], rows[mostAudited:]...)
			left += mostAudited
		}
		rows = append(rows, r)
		return nil
	}
	if f.follow {
		show = func(r auditRow) error { return a.writeAudit(cmd, r) }
	}
	r := reading{stream: events.StreamEvents, filters: []string{events.AuditRecorded.Filter()}, since: since, follow: f.follow}
	err = c.read(cmd.Context(), r, func(m jetstream.Msg) error {
		// Only what the services themselves said counts, by all that a service would check.
		e, err := bus.Open(events.AuditRecorded, plainMessage(m))
		if err != nil {
			note(cmd.ErrOrStderr(), "%s: not a record of the audit: %v", m.Subject(), err)
			return nil
		}
		if !f.wanted(e.Data) {
			return nil
		}
		return show(auditRow{e.ID, e.Trace, e.Data})
	})
	if err != nil || f.follow {
		return err
	}
	if over := len(rows) - mostAudited; over > 0 {
		rows, left = rows[over:], left+over
	}
	if left > 0 {
		note(cmd.ErrOrStderr(), "%s left out: the newest %s are shown", plural(left, "older record is", "older records are"), count(mostAudited))
	}
	return a.auditColumns().show(cmd, a.output, rows)
}

// wanted holds a record against the flags.
func (f auditFlags) wanted(r events.AuditRecord) bool {
	switch {
	case f.refused && r.Result == auditOK:
		return false
	case f.by != "" && f.by != r.By && !strings.HasPrefix(r.Key, f.by):
		return false
	}
	return f.verb == "" || f.verb == r.Verb || f.verb == auditCall(r)
}

// auditOK is the result of a request that was carried out.
const auditOK = "ok"

func (a *app) auditColumns() listing[auditRow] {
	return listing[auditRow]{
		name: func(r auditRow) string { return r.ID },
		columns: []column[auditRow]{
			{"TIME", false, func(r auditRow) any { return cell{a.longTime(r.At), r.At.UTC().Format(time.RFC3339Nano)} }},
			{"WHO", false, func(r auditRow) any { return r.By }},
			{"KEY", false, func(r auditRow) any { return cell{shortKey(r.Key), r.Key} }},
			{"REQUEST", false, func(r auditRow) any { return auditCall(r.AuditRecord) }},
			{"ABOUT", false, func(r auditRow) any { return r.About }},
			{"RESULT", false, func(r auditRow) any { return r.Result }},
			{"CHANGE", false, func(r auditRow) any { return cell{auditChange(r.AuditRecord), r.Before + ">" + r.After} }},
			{"ERROR", true, func(r auditRow) any { return r.Error }},
			{"DIGEST", true, func(r auditRow) any { return cell{shortDigest(r.Request), r.Request} }},
			{"TRACE", true, func(r auditRow) any { return r.Trace }},
		},
	}
}

// writeAudit shows one record as it comes.
func (a *app) writeAudit(cmd *cobra.Command, r auditRow) error {
	if !people(a.output) {
		return writeNext(cmd.OutOrStdout(), a.output, r)
	}
	line := fmt.Sprintf("%s  %-12s  %-8s  %-32s  %-24s  %-11s  %s", a.longTime(r.At), r.By, shortKey(r.Key), auditCall(r.AuditRecord), r.About, r.Result, auditChange(r.AuditRecord))
	if r.Error != "" {
		line += " " + r.Error
	}
	note(cmd.OutOrStdout(), "%s", strings.TrimRight(line, " "))
	return nil
}

func auditCall(r events.AuditRecord) string { return r.Service + "." + r.Verb }

// auditChange tells what was from what is: "→ 3ba81e" was made, "3ba81e →" was removed.
func auditChange(r events.AuditRecord) string {
	if r.Before == "" && r.After == "" {
		return ""
	}
	return strings.TrimSpace(shortDigest(r.Before) + " → " + shortDigest(r.After))
}

func shortDigest(d string) string { return d[:min(8, len(d))] }

// shortKey is enough of a public key to tell people apart.
func shortKey(k string) string { return k[:min(8, len(k))] }
