package elevate

import (
	"chandler/events"
)

// note says what was done for a record. The agent's id and host name are the Teller's to add.
func (k *Keeper) note(r record, means string) events.AccountNote {
	return events.AccountNote{
		Account: r.Account.Name, Kind: r.Kind, ElevatedTo: k.system.raisedTo(), Standing: r.Standing,
		Job: r.Job, Deployment: r.Deployment, Attempt: r.Attempt, Program: r.Program, Means: means, At: k.now(),
	}
}

// tellAll tells what is not told yet, and removes records that have nothing left to say. What fails is tried again at the
// next call: it is logged, and never an error of what was asked for.
func (k *Keeper) tellAll() {
	if k.tell == nil {
		return
	}
	records, _, err := k.store.read()
	if err != nil {
		k.log.Error("notes about accounts cannot be read", "component", "elevate", "error", err)
	}
	for _, r := range records {
		left := len(r.Notes)
		for len(r.Notes) > 0 {
			event, _ := r.Notes[0].Saying.event()
			if err := k.tell(event, r.Notes[0].Note); err != nil {
				k.log.Warn("a note about an account cannot be told yet", "component", "elevate", "account", r.Account.Name, "job", r.Job, "error", err)
				break
			}
			r.Notes = r.Notes[1:]
		}
		if left == len(r.Notes) && !(r.Taken && left == 0) {
			continue
		}
		if err := k.store.keep(r); err != nil {
			k.log.Error("a note about an account cannot be crossed off", "component", "elevate", "account", r.Account.Name, "job", r.Job, "error", err)
		}
	}
}
