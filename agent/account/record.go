package account

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attributes are those of a record of Open Directory.
type attributes map[string][]string

// parseRecord reads what dscl prints: a line for a key with its values, or the values on lines of their own below it,
// indented.
func parseRecord(answer []byte) (attributes, error) {
	if len(answer) > maxAnswer || !utf8.Valid(answer) {
		return nil, errors.New("record: not text, or too long")
	}
	found := attributes{}
	last := ""
	for line := range strings.Lines(string(answer)) {
		line = strings.TrimSuffix(line, "\n")
		if value, indented := strings.CutPrefix(line, " "); indented {
			if last == "" {
				return nil, errors.New("record: a value before any key")
			}
			found[last] = append(found[last], value)
			continue
		}
		// dsAttrTypeNative:name has a colon of its own.
		key, values, isKey := strings.Cut(strings.TrimPrefix(line, "dsAttrTypeNative:"), ":")
		if !isKey || key == "" || found[key] != nil {
			return nil, fmt.Errorf("record: line %q", line)
		}
		last, found[key] = key, []string{}
		if values = strings.TrimPrefix(values, " "); values != "" {
			found[key] = append(found[key], values)
		}
	}
	return found, nil
}

// one is the value of a key that has exactly one, or "".
func (a attributes) one(key string) string {
	if len(a[key]) != 1 {
		return ""
	}
	return a[key][0]
}

// userOf is the user of a record; a record has its aliases on the line of its name.
func userOf(record attributes, asked string) (found Account, disabled bool, err error) {
	names := strings.Fields(strings.Join(record["RecordName"], " "))
	if !slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(userPart(name), userPart(asked)) }) {
		return Account{}, false, fmt.Errorf("the system answers with %q, which is not the same user", names)
	}
	found = Account{Name: names[0], Home: record.one("NFSHomeDirectory"), Shell: record.one("UserShell"), SID: ""}
	if err := checkName(found.Name); err != nil {
		return Account{}, false, fmt.Errorf("name %q: %w", found.Name, err)
	}
	if found.UID, err = parseID(record.one("UniqueID")); err != nil {
		return Account{}, false, err
	}
	if found.GID, err = parseID(record.one("PrimaryGroupID")); err != nil {
		return Account{}, false, err
	}
	return found, strings.Contains(strings.Join(record["AuthenticationAuthority"], " "), ";DisabledUser;"), nil
}

// What a user of macOS has who cannot log on.
const (
	recordShell = "/usr/bin/false"
	recordHome  = "/var/empty"
	recordGroup = "20" // staff, every local user's
)

// recordSteps are arguments of dscl, in an order in which a user that is made half has no number and so is nobody's yet.
func recordSteps(name string, uid uint32) [][]string {
	path := "/Users/" + name
	steps := [][]string{{".", "-create", path}}
	for _, step := range [][2]string{
		{"RealName", Comment}, {"IsHidden", "1"}, {"Password", "*"}, {"AuthenticationAuthority", ";DisabledUser;"}, {"UserShell", recordShell},
		{"NFSHomeDirectory", recordHome}, {"PrimaryGroupID", recordGroup}, {"UniqueID", strconv.FormatUint(uint64(uid), 10)},
	} {
		steps = append(steps, []string{".", "-create", path, step[0], step[1]})
	}
	return steps
}

// freeUID reads what `dscl . -list /Users UniqueID` prints and gives a number of those that macOS hides from people.
func freeUID(answer []byte) (uint32, error) {
	const first, last = 401, 499
	if len(answer) > maxAnswer || !utf8.Valid(answer) {
		return 0, errors.New("list of users: not text, or too long")
	}
	taken := map[string]bool{}
	for line := range strings.Lines(string(answer)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return 0, fmt.Errorf("list of users: line %q", line)
		}
		taken[fields[len(fields)-1]] = true
	}
	for uid := uint32(first); uid <= last; uid++ {
		if !taken[strconv.FormatUint(uint64(uid), 10)] {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("no free number between %d and %d", first, last)
}
