package account

import (
	"errors"
	"strings"
)

// parseSudoList reads what `sudo -l -U user` prints, in English: whether the user may run anything. What it does not know
// is an error, not a no.
func parseSudoList(answer []byte) (bool, error) {
	for line := range strings.Lines(string(answer)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "User ") {
			continue
		}
		if strings.Contains(line, " is not allowed to run sudo on ") {
			return false, nil
		}
		if strings.Contains(line, " may run the following commands on ") {
			return true, nil
		}
	}
	return false, errors.New("the list of sudo is not understood")
}
