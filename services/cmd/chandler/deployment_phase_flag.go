package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"chandler/events"
	"chandler/services/declared"
)

// flagPlan fills in what the flags say of the rollout.
func flagPlan(stdin io.Reader, d *declared.Deployment, f createFlags) error {
	if len(f.phases) > 0 && f.phasesFile != "" {
		return fmt.Errorf("--phase and --phases: the phases are said by one of them")
	}
	if f.phasesFile != "" {
		data, err := readDeclared(stdin, f.phasesFile)
		if err != nil {
			return fmt.Errorf("--phases: %w", err)
		}
		if d.Plan, err = declared.ParsePlan(f.phasesFile, data); err != nil {
			return fmt.Errorf("--phases: %w", err)
		}
	}
	for _, text := range f.phases {
		p, err := parsePhase(text)
		if err != nil {
			return fmt.Errorf("--phase %q: %w", text, err)
		}
		d.Phases = append(d.Phases, p)
	}
	if f.maxInFlight != 0 {
		d.MaxInFlight = f.maxInFlight
	}
	if f.maxPerSite != 0 {
		d.MaxInFlightPerSite = f.maxPerSite
	}
	return nil
}

// parsePhase reads NAME=WHO,advance=GATE,halt=GATE,max=N.
func parsePhase(text string) (p events.Phase, err error) {
	parts := strings.Split(text, ",")
	name, who, ok := strings.Cut(parts[0], "=")
	if !ok {
		return p, fmt.Errorf("write it as NAME=1%%,advance=succeeded:95%%;for:24h,halt=failed:5%%")
	}
	p.Name = name
	if share, ok := strings.CutSuffix(who, "%"); ok {
		if p.Percent, err = strconv.ParseFloat(share, 64); err != nil {
			return p, fmt.Errorf("%q is no share: write it as 5%%", who)
		}
	} else if p.Count, err = strconv.Atoi(who); err != nil {
		p.Count, p.Collection, err = 0, who, nil
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "advance":
			p.AdvanceWhen, err = parseAdvance(value)
		case "halt":
			p.HaltWhen, err = parseHalt(value)
		case "max":
			if p.MaxInFlight, err = strconv.Atoi(value); err != nil {
				err = fmt.Errorf("max=%s: it is a number of jobs", value)
			}
		default:
			err = fmt.Errorf("%q: there are advance=, halt= and max=", part)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

func parseAdvance(text string) (*events.Advance, error) {
	var gate events.Advance
	for part := range strings.SplitSeq(text, ";") {
		key, value, _ := strings.Cut(part, ":")
		var err error
		switch key {
		case "succeeded":
			gate.Succeeded = new(events.Limit)
			err = gate.Succeeded.UnmarshalText([]byte(value))
		case "for":
			err = parseFor(value, &gate.For)
		case "approval":
			gate.Approval = true
		case "event":
			kind, subject, _ := strings.Cut(value, "@")
			gate.Event = &events.ExternalGate{Type: kind, Subject: subject}
		default:
			err = fmt.Errorf("advance=%s: there are succeeded:95%%, for:24h, approval and event:TYPE@SUBJECT, joined by ;", part)
		}
		if err != nil {
			return nil, err
		}
	}
	return &gate, nil
}

func parseHalt(text string) (*events.Halt, error) {
	var gate events.Halt
	for part := range strings.SplitSeq(text, ";") {
		key, value, _ := strings.Cut(part, ":")
		var err error
		switch key {
		case "failed":
			gate.Failed = new(events.Limit)
			err = gate.Failed.UnmarshalText([]byte(value))
		case "silent":
			share, after, _ := strings.Cut(value, "@")
			gate.Silent = &events.Silence{}
			if err = gate.Silent.Share.UnmarshalText([]byte(share)); err == nil {
				err = parseFor(after, &gate.Silent.After)
			}
		default:
			err = fmt.Errorf("halt=%s: there are failed:5%% and silent:20%%@4h, joined by ;", part)
		}
		if err != nil {
			return nil, err
		}
	}
	return &gate, nil
}

// parseFor reads a length of time; days too.
func parseFor(text string, into *events.Duration) error {
	span, err := parseSpan(text)
	*into = events.Duration(span)
	return err
}
