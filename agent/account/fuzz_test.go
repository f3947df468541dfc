package account

import (
	"strings"
	"testing"
	"time"
)

func FuzzAnswersOfTheSystem(f *testing.F) {
	f.Add([]byte("alice:x:1000:1001:Alice:/home/alice:/bin/bash\n"))
	f.Add([]byte("alice:!:19000:0:99999:7::1:\n"))
	f.Add([]byte("sudo:x:27:alice,bob\n"))
	f.Add([]byte("1000 27\n"))
	f.Add([]byte("RecordName: alice\nUniqueID: 501\nPrimaryGroupID: 20\nA:\n b\n"))
	f.Add([]byte("User a may run the following commands on b:\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if e, err := parsePasswd(answer); err == nil && (checkName(e.name) != nil || e.uid == 1<<32-1 || strings.ContainsAny(e.home+e.shell, ":\n\x00")) {
			t.Errorf("user %+v of %q", e, answer)
		}
		if s, err := parseShadow(answer); err == nil {
			s.ended(time.Unix(1<<31, 0))
		}
		if groups, err := parseGroups(answer); err == nil && strings.Count(string(answer), ":") != 3*len(groups) {
			t.Errorf("groups %v of %q", groups, answer)
		}
		if ids, err := parseIDs(answer); err == nil && len(ids) == 0 {
			t.Errorf("no numbers of %q", answer)
		}
		if record, err := parseRecord(answer); err == nil {
			if found, _, err := userOf(record, "alice"); err == nil && checkName(found.Name) != nil {
				t.Errorf("user %+v of %q", found, answer)
			}
		}
		if uid, err := freeUID(answer); err == nil && (uid < 401 || uid > 499) {
			t.Errorf("number %d of %q", uid, answer)
		}
		if has, err := parseSudoList(answer); has && err != nil {
			t.Errorf("rights of %q: %v", answer, err)
		}
	})
}
