package main

import (
	"context"
	"fmt"

	"chandler/events"
)

// examineFreezes names what is frozen: it is easily forgotten, and then nothing seems to happen. What was taken back is to
// stay so.
func (a *app) examineFreezes(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.ExecutionFreezes, events.Nothing{})
	if err != nil {
		return nil, err
	}
	deployments, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, d := range deployments.Deployments {
		taken[d.Deployment] = d.RolledBack
	}
	found := []finding{}
	for _, f := range all.Freezes {
		if f.Scope == "deployment" && taken[f.Name] {
			continue
		}
		why := ""
		if f.Why != "" {
			why = " (" + f.Why + ")"
		}
		found = append(found, warning("freeze", "lift it with `"+a.unfreezeCommand(f)+"`", "%s starts no programs: frozen by %s at %s%s", scopeText(f), f.By, a.longTime(f.At), why))
	}
	if len(found) == 0 {
		found = append(found, ok("freezes", "none"))
	}
	return found, nil
}

// examineRollouts names those that do not go on by themselves.
func (a *app) examineRollouts(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	found := []finding{}
	for _, view := range all.Deployments {
		if why := a.stuck(view); why != "" {
			found = append(found, warning("rollout", "`"+a.self+" deployment show "+view.Deployment+"` says more; deployment resume, skip, plan or rollback goes on from there", "deployment %s: %s", view.Deployment, why))
		}
	}
	if len(found) == 0 {
		found = append(found, ok("rollouts", "none is stuck"))
	}
	return found, nil
}

// stuck says why a rollout waits for somebody to do something; "": it does not, or is over.
func (a *app) stuck(view events.DeploymentView) string {
	open := openPhase(view)
	switch {
	case view.RolledBack || len(view.Phases) == 0:
		return ""
	case view.Life == events.LifeHalted:
		return "it is halted: " + cellOr(a.localTimes(view.Why), "nobody said why")
	case view.Life != events.LifeActive:
		return ""
	case open < 0:
		return "its first phase, " + view.Phases[0].Name + ", holds nobody and does not open"
	case open < len(view.Phases)-1 && view.Phases[open].Size == 0:
		return fmt.Sprintf("phase %s holds nobody: %s", view.Phases[open].Name, cellOr(a.localTimes(view.Phases[open].Says), "it waits"))
	}
	return ""
}
