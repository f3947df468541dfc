package inbox

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"chandler/events"
)

// maxUser bounds the name of a user in an offer, in bytes, as execution does.
const maxUser = 256

// CheckOffer says why an agent never takes an offer in, whatever the order behind it says; nil: it may be its own.
func CheckOffer(o events.JobOffer, agent string) error {
	if o.Format > events.OfferFormat {
		return fmt.Errorf("offer has format %d, this agent reads up to %d", o.Format, events.OfferFormat)
	}
	if o.Attempt < 1 {
		return fmt.Errorf("offer of attempt %d: they count from 1", o.Attempt)
	}
	if len(o.User) > maxUser || !utf8.ValidString(o.User) || strings.ContainsFunc(o.User, unicode.IsControl) {
		return fmt.Errorf("offer names a user that nobody can be called, of %d bytes", len(o.User))
	}
	if err := events.ValidDigest(o.Order); err != nil {
		return fmt.Errorf("offer names order: %w", err)
	}
	if want := events.JobID(o.Deployment, o.Revision, agent, o.Occurrence, o.User); o.Job != want {
		return fmt.Errorf("offer names job %q, which is not of this agent and deployment", o.Job)
	}
	return nil
}
