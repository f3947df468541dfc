package access

import (
	"cmp"
	"slices"

	"github.com/nats-io/jwt/v2"

	"chandler/events"
)

// crossing is one subject that passes between two accounts: a request to the account it is from, or a
// stream out of it.
type crossing struct {
	from    Account
	kind    jwt.ExportType
	subject string
	// many: a request may have more than one answer.
	many bool
	// local is the subject in the importing account; empty: the same.
	local string
}

// asked is the subject as the importing account knows it.
func (c crossing) asked() string { return cmp.Or(c.local, c.subject) }

// jsInfo is imported by every account that has no streams. Without it the broker gives such an account its
// own way to all of JetStream's API, which answers each request first with a refusal, or second.
const jsInfo = jsAPI + "INFO"

// crossings of an account are what it imports. Its roles may use no more than this, whatever their
// templates say.
func crossings(a Account) []crossing {
	var all []crossing
	request := func(many bool, subjects ...string) {
		for _, s := range subjects {
			all = append(all, crossing{from: Fleet, kind: jwt.Service, subject: s, many: many})
		}
	}
	stream := func(from Account, subject string) {
		all = append(all, crossing{from: from, kind: jwt.Stream, subject: subject})
	}

	for _, c := range events.Calls() {
		if callsFrom(a, c.By) {
			request(c.By.Person(), c.Filter()) // large answers to people go in parts
		}
	}
	if a == Agents || a == People || a == Enrolment {
		request(false, jsInfo)
	}
	switch a {
	case Agents:
		for _, d := range events.Types() {
			switch {
			case d.Sender == "agent":
				request(false, published(d, "*"))
			case d.Stream == "":
				stream(Fleet, d.Subject("*"))
			}
		}
		request(false, newestOffer(jsAPI, "*"))
		// An agent that names the domain finds it at the hub too.
		all = append(all, crossing{from: Fleet, kind: jwt.Service, subject: newestOffer(jsAPI, "*"), local: newestOffer(domainAPI, "*")})
		stream(Fleet, events.AgentInbox("*"))
	case People:
		request(true, reading()...)
		request(true, control)
		request(true, examining()...)
		for _, d := range events.Types() {
			if d.Sender == "agent" { // the broker does not pass on what has crossed into the fleet's account already
				stream(Agents, published(d, "*"))
			} else {
				stream(Fleet, taken(d))
			}
		}
	}
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func compare(a, b crossing) int {
	return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.kind, b.kind), cmp.Compare(a.subject, b.subject), cmp.Compare(a.local, b.local))
}

// callsFrom says whether a call that needs role by is made from the account.
func callsFrom(a Account, by events.Caller) bool {
	switch a {
	case Agents:
		return by == events.ByAgent
	case Enrolment:
		return by == events.ByEnrolling
	case People:
		return by.Person()
	}
	return false
}

// exported is what other accounts import from this one.
func exported(from Account) []crossing {
	var all []crossing
	for _, a := range Accounts() {
		for _, c := range crossings(a) {
			if c.from == from {
				c.local = ""
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func exports(a Account) jwt.Exports {
	var out jwt.Exports
	for _, c := range exported(a) {
		e := &jwt.Export{Name: c.subject, Subject: jwt.Subject(c.subject), Type: c.kind}
		if c.many {
			e.ResponseType = jwt.ResponseTypeStream
		}
		out.Add(e)
	}
	return out
}

func (k Keys) imports(a Account) (jwt.Imports, error) {
	var out jwt.Imports
	for _, c := range crossings(a) {
		from, err := k.account(c.from)
		if err != nil {
			return nil, err
		}
		out.Add(&jwt.Import{Name: c.subject, Subject: jwt.Subject(c.subject), Account: from, Type: c.kind, LocalSubject: jwt.RenamingSubject(c.local)})
	}
	return out, nil
}
