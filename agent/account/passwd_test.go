package account

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOnlyOneWholeUserEntryIsAUser(t *testing.T) {
	good := "alice:x:1000:1001:Alice Ärlig,,:/home/alice:/bin/bash\n"
	want := entry{name: "alice", uid: 1000, gid: 1001, comment: "Alice Ärlig,,", home: "/home/alice", shell: "/bin/bash"}
	if got, err := parsePasswd([]byte(good)); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for name, answer := range map[string]string{
		"nothing":                      "",
		"two users":                    good + good,
		"a field too few":              "alice:x:1000:1001:Alice:/home/alice\n",
		"a field too many":             "alice:x:1000:1001:Alice:/home/alice:/bin/bash:\n",
		"a user number that is none":   "alice:x:-1:1001:::/bin/sh\n",
		"the number that means nobody": "alice:x:4294967295:1001:::/bin/sh\n",
		"a number too large":           "alice:x:4294967296:1001:::/bin/sh\n",
		"a group number with a blank":  "alice:x:1: 1:::/bin/sh\n",
		"no name":                      ":x:1000:1001:::/bin/sh\n",
		"an option as name":            "-G:x:1000:1001:::/bin/sh\n",
		"a number as name":             "1000:x:1000:1001:::/bin/sh\n",
		"a control character":          "a\x1blice:x:1000:1001:::/bin/sh\n",
		"bytes that are no text":       "alice:x:1000:1001:\xff::/bin/sh\n",
		"more than the limit":          "alice:x:1000:1001:" + strings.Repeat("x", maxAnswer) + "::/bin/sh\n",
	} {
		if got, err := parsePasswd([]byte(answer)); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnAccountHasEndedByTheRulesOfTheSystem(t *testing.T) {
	now := time.Date(2024, 3, 10, 12, 0, 0, 0, time.UTC) // day 19792
	for name, test := range map[string]struct{ line, want string }{
		"an ordinary user":                           {"a:$6$x:19000:0:99999:7:::", ""},
		"a locked password with keys to log on by":   {"a:!$6$x:19000:0:99999:7:::", ""},
		"fields that say nothing":                    {"a:!:::::::", ""},
		"one that expires tomorrow":                  {"a:x:19000:0:99999:7::19793:", ""},
		"one that expires today":                     {"a:x:19000:0:99999:7::19792:", "is disabled: it expired on 2024-03-10"},
		"one made expired, the day written as one":   {"a:!:19000:::::1:", "is disabled: it expired on 1970-01-02"},
		"one made expired, the day written as zero":  {"a:!:19000:::::0:", "is disabled: it expired on 1970-01-01"},
		"a password that must be changed":            {"a:x:0:0:99999:7:::", "must change its password before it is used"},
		"a password older than it may be":            {"a:x:19000:0:90:7:::", "has a password that has expired"},
		"a password that grows as old as it may be":  {"a:x:19702:0:90:7:::", ""},
		"a limit of age of minus one, which is none": {"a:!:19000::-1::::", ""},
	} {
		s, err := parseShadow([]byte(test.line + "\n"))
		if err != nil {
			t.Errorf("%s: %v in %q", name, err, test.line)
			continue
		}
		if got := s.ended(now); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestAPasswordIsOneThatSomebodyCouldType(t *testing.T) {
	for password, want := range map[string]bool{"": true, "$6$salt$hash": true, "x": true, "!": false, "!!": false, "*": false, "!$6$salt$hash": false, "*LK*": false} {
		if s, err := parseShadow([]byte("a:" + password + ":19000::::::")); err != nil || s.password != want {
			t.Errorf("%q: %v, %v", password, s.password, err)
		}
	}
}

func TestGroupsAreReadStrictly(t *testing.T) {
	got, err := parseGroups([]byte("sudo:x:27:alice,bob\nwheel:*:998:\n"))
	if err != nil || !cmp.Equal(got, []group{{"sudo", 27}, {"wheel", 998}}, cmp.AllowUnexported(group{})) {
		t.Errorf("%v, %v", got, err)
	}
	ids, err := parseIDs([]byte("1000 27 4294967294\n"))
	if err != nil || !cmp.Equal(ids, []uint32{1000, 27, 1<<32 - 2}) {
		t.Errorf("%v, %v", ids, err)
	}
	for _, answer := range []string{"", "\n", "1000 x", "1000,27", "4294967295", "-1"} {
		if ids, err := parseIDs([]byte(answer)); err == nil {
			t.Errorf("%q: %v", answer, ids)
		}
	}
	for _, answer := range []string{"sudo:x:27\n", "sudo:x:a:\n", "\n", "sudo:x:27:\n\n", "\xff:x:27:\n"} {
		if groups, err := parseGroups([]byte(answer)); err == nil {
			t.Errorf("%q: %v", answer, groups)
		}
	}
}

func TestAnUnknownListOfSudoIsNotANo(t *testing.T) {
	for answer, want := range map[string]struct{ has, understood bool }{
		"User SMSCliToknLocalAcct& is not allowed to run sudo on host.\n":                                                                       {false, true},
		"Matching Defaults entries for a on host:\n    env_reset\n\nUser a may run the following commands on host:\n    (root) NOPASSWD: ALL\n": {true, true},
		"":                        {},
		"sudo: unknown user a\n":  {},
		"l'utilisateur ne peut\n": {},
	} {
		if has, err := parseSudoList([]byte(answer)); has != want.has || (err == nil) != want.understood {
			t.Errorf("%q: %v, %v", answer, has, err)
		}
	}
}

func TestANameIsNothingElse(t *testing.T) {
	for _, name := range []string{"", "-a", "0", "1000", "a:b", "a/b", "../etc", "a\nb", "a\x00", "a,b", "+0", "#0", "\xff", strings.Repeat("a", maxName+1)} {
		if checkName(name) == nil {
			t.Errorf("%q is a name", name)
		}
		if _, err := Lookup(t.Context(), name); err == nil {
			t.Errorf("%q is a user", name)
		}
	}
	for _, name := range []string{"alice", "SMSCliToknLocalAcct&", `EXAMPLE\alice`, "alice@example.com", "åsa", `EXAMPLE\domain admin`, "host$", "4all"} {
		if err := checkName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, want := range map[string]string{"alice": "alice", `EXAMPLE\alice`: "alice", "alice@example.com": "alice"} {
		if got := userPart(name); got != want {
			t.Errorf("the user part of %s is %s", name, got)
		}
	}
}

func TestARecordOfOpenDirectoryIsAUser(t *testing.T) {
	answer := "AuthenticationAuthority:\n ;ShadowHash;HASHLIST:<SRP-RFC5054-4096-SHA512-PBKDF2>\n ;Kerberosv5;;alice@LKDC:SHA1.X\nGeneratedUID: 0B1C2D3E\n" +
		"NFSHomeDirectory: /Users/alice\nPrimaryGroupID: 20\nRecordName: alice com.apple.idms.appleid.prd.0001\nUniqueID: 501\nUserShell: /bin/zsh\ndsAttrTypeNative:IsHidden: 1\n"
	record, err := parseRecord([]byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	got, disabled, err := userOf(record, "alice")
	if want := (Account{Name: "alice", UID: 501, GID: 20, Home: "/Users/alice", Shell: "/bin/zsh"}); err != nil || disabled || !cmp.Equal(got, want) {
		t.Errorf("%+v, disabled %v, %v", got, disabled, err)
	}
	if _, _, err := userOf(record, "bob"); err == nil {
		t.Error("alice is bob")
	}
	record["AuthenticationAuthority"] = append(record["AuthenticationAuthority"], ";DisabledUser;;ShadowHash;")
	if _, disabled, err := userOf(record, "alice"); err != nil || !disabled {
		t.Errorf("disabled %v, %v", disabled, err)
	}
	for _, answer := range []string{" value before a key\n", "no key\n", "UniqueID: 1\nUniqueID: 2\n", "\xff: 1\n"} {
		if record, err := parseRecord([]byte(answer)); err == nil {
			t.Errorf("%q: %v", answer, record)
		}
	}
	uid, err := freeUID([]byte("_mbsetupuser 248\nalice   501\nour account 401\n"))
	if err != nil || uid != 402 {
		t.Errorf("free number %d, %v", uid, err)
	}
	if steps := recordSteps("a&", uid); steps[0][2] != "/Users/a&" || steps[len(steps)-1][3] != "UniqueID" {
		t.Errorf("a user made half has a number already: %q", steps)
	}
}
