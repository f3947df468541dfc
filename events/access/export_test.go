package access

// What the tests against a broker need to know of the tables.
var (
	Readers      = readers
	BucketStream = bucketStream
)

func (r reads) Durable() map[string][]string { return r.durable }
func (r reads) Follows() []string            { return r.follows }
func (r reads) Looks() []string              { return r.looks }
func (r reads) Writes() []string             { return r.writes }
