package inbox

import (
	"strings"
	"testing"

	"chandler/events"
)

func TestOffersThatAreNoneAreNeverTakenIn(t *testing.T) {
	digest := events.DigestOf([]byte("order"))
	whole := events.JobOffer{Format: events.OfferFormat, Agent: me, Job: events.JobID("hello", 1, me, 0, ""), Deployment: "hello", Revision: 1, Order: digest, Attempt: 1}
	for name, c := range map[string]struct {
		change func(*events.JobOffer)
		says   string
	}{
		"one that is right is taken":                {func(*events.JobOffer) {}, ""},
		"one of a newer format is not":              {func(o *events.JobOffer) { o.Format++ }, "format"},
		"one of attempt 0 is not":                   {func(o *events.JobOffer) { o.Attempt = 0 }, "attempt 0"},
		"one whose order is no digest is not":       {func(o *events.JobOffer) { o.Order = "../order" }, "names order"},
		"one of another revision's job is not":      {func(o *events.JobOffer) { o.Revision = 2 }, "names job"},
		"one of another agent's job is not":         {func(o *events.JobOffer) { o.Job = events.JobID("hello", 1, other, 0, "") }, "names job"},
		"one for a user with a line break is not":   {func(o *events.JobOffer) { o.User = "a\nb" }, "user"},
		"one for a user of endless length is not":   {func(o *events.JobOffer) { o.User = strings.Repeat("a", maxUser+1) }, "user"},
		"one for a user that is no text is not":     {func(o *events.JobOffer) { o.User = "\xff" }, "user"},
		"one of a user's job without him it is not": {func(o *events.JobOffer) { o.User = "ada" }, "names job"},
	} {
		t.Run(name, func(t *testing.T) {
			o := whole
			c.change(&o)
			err := CheckOffer(o, me)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it says %v, want %q", err, c.says)
			}
		})
	}
}
