package journal

import (
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"chandler/events"
)

func TestNoticesStayUntilTheyAreToldInTheirOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	s, err := Open(path)
	must(t, err)
	j, err := s.Agent("agent0001")
	must(t, err)
	for _, name := range []string{events.AgentAccountElevated.Name, events.AgentAccountReturned.Name, events.AgentAccountElevated.Name} {
		must(t, j.Notify(Notice{Type: name, Note: events.AccountNote{Account: "token", At: t0}}))
	}
	must(t, s.Close())
	j = open(t, path)
	first, err := j.Notices(1)
	must(t, err)
	if len(first) != 1 || first[0].Type != events.AgentAccountElevated.Name || !first[0].Note.At.Equal(t0) {
		t.Fatalf("the first is %+v", first)
	}
	must(t, j.Told(first[0].Sequence))
	must(t, j.Told(first[0].Sequence)) // an agent that was killed tells it again
	rest, err := j.Notices(10)
	must(t, err)
	if len(rest) != 2 || rest[0].Type != events.AgentAccountReturned.Name {
		t.Fatalf("the rest is %+v", rest)
	}
}

func TestTheOldestNoticesGoWhereThereIsNoBrokerForLong(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	must(t, j.write(func(root *bbolt.Bucket) error { return root.Bucket(bucketNotices).SetSequence(maxNotices - 1) }))
	must(t, j.Notify(Notice{Type: "last of many"}))
	for n := range 3 {
		must(t, j.Notify(Notice{Type: fmt.Sprint(n)}))
	}
	all, err := j.Notices(10)
	must(t, err)
	if len(all) != 4 {
		t.Fatalf("what is recent is lost: %+v", all)
	}
	must(t, j.write(func(root *bbolt.Bucket) error { return root.Bucket(bucketNotices).SetSequence(2*maxNotices - 1) }))
	must(t, j.Notify(Notice{Type: "new"}))
	if all, err = j.Notices(10); err != nil || len(all) != 4 || all[0].Type != "0" || all[3].Type != "new" {
		t.Errorf("there are %+v, %v", all, err)
	}
}
