package raised

import "strings"

// Spell gives the ways in which a machine may know a user: EXAMPLE\alice as it is and as alice@EXAMPLE, any other as it is.
// Never alice alone: where the domain is not joined, or away, that could be a local user who has the name by chance.
func Spell(user string) []string {
	domain, name, found := strings.Cut(user, `\`)
	if !found || domain == "" || name == "" {
		return []string{user}
	}
	return []string{user, name + "@" + domain}
}
