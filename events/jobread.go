package events

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// The events of which there are as many as jobs are read without reflection and without their schemas, as this program
// writes them. What is accepted satisfies the type's schema, and is read as encoding/json reads it. What is not accepted
// (ok is false) may be good all the same, of a newer writer or another one: then encoding/json and the schema have the
// word.

// ReadStatus reads the JSON of a status.
func ReadStatus(data []byte) (s JobStatus, ok bool) {
	r := jsonReader{rest: data}
	for r.next('{', '}') {
		r.status(&s, r.key())
	}
	return s, r.complete(requiredOfStatus)
}

// ReadEnd reads the JSON of the end of a job.
func ReadEnd(data []byte) (e JobEnd, ok bool) {
	r := jsonReader{rest: data}
	for r.next('{', '}') {
		if key := r.key(); string(key) == "silent" {
			e.Silent = r.bool(fieldSilent)
		} else {
			r.status(&e.JobStatus, key)
		}
	}
	return e, r.complete(requiredOfStatus)
}

// ReadOffer reads the JSON of an offer.
func ReadOffer(data []byte) (o JobOffer, ok bool) {
	r := jsonReader{rest: data}
	for r.next('{', '}') {
		switch string(r.key()) {
		case "format":
			o.Format = int(r.signed(fieldFormat))
		case "agent":
			o.Agent = r.text(fieldAgent)
		case "job":
			o.Job = r.text(fieldJob)
		case "deployment":
			o.Deployment = r.text(fieldDeployment)
		case "revision":
			o.Revision = r.unsigned(fieldRevision, 64)
		case "order":
			o.Order = r.text(fieldOrder)
		case "occurrence":
			o.Occurrence = r.signed(fieldOccurrence)
		case "user":
			o.User = r.text(fieldUser)
		case "attempt":
			o.Attempt = int(r.signed(fieldAttempt))
		default:
			r.failed = true
		}
	}
	return o, r.complete(fieldFormat | fieldAgent | fieldJob | fieldDeployment | fieldRevision | fieldOrder | fieldAttempt)
}

const requiredOfStatus = fieldJob | fieldDeployment | fieldRevision | fieldOrder | fieldAgent | fieldAttempt | fieldTransition | fieldState | fieldAt

// The fields of all that is read, so that each is read once.
const (
	fieldJob = 1 << iota
	fieldDeployment
	fieldRevision
	fieldOrder
	fieldAgent
	fieldHost
	fieldSite
	fieldPackage
	fieldVersion
	fieldProgram
	fieldStep
	fieldOccurrence
	fieldUser
	fieldAttempt
	fieldTransition
	fieldState
	fieldReason
	fieldWaitingFor
	fieldExplanation
	fieldIdentity
	fieldResource
	fieldAnswer
	fieldReader
	fieldExecutor
	fieldElevatedTo
	fieldExitCode
	fieldBytes
	fieldSeconds
	fieldRetryAt
	fieldAccesses
	fieldAt
	fieldAccount
	fieldWhen
	fieldSilent
	fieldFormat
)

// jsonReader takes one object off its beginning; after the first thing it does not know, all it gives is zero.
type jsonReader struct {
	rest   []byte
	seen   uint64 // fields
	begun  bool
	failed bool
}

func (r *jsonReader) status(s *JobStatus, key []byte) {
	switch string(key) {
	case "job":
		s.Job = r.text(fieldJob)
	case "deployment":
		s.Deployment = r.text(fieldDeployment)
	case "revision":
		s.Revision = r.unsigned(fieldRevision, 64)
	case "order":
		s.Order = r.text(fieldOrder)
	case "agent":
		s.Agent = r.text(fieldAgent)
	case "host":
		s.Host = r.text(fieldHost)
	case "site":
		s.Site = r.text(fieldSite)
	case "package":
		s.Package = r.text(fieldPackage)
	case "version":
		s.Version = r.text(fieldVersion)
	case "program":
		s.Program = r.text(fieldProgram)
	case "step":
		s.Step = r.text(fieldStep)
	case "occurrence":
		s.Occurrence = r.signed(fieldOccurrence)
	case "user":
		s.User = r.text(fieldUser)
	case "attempt":
		s.Attempt = int(r.signed(fieldAttempt))
	case "transition":
		s.Transition = uint32(r.unsigned(fieldTransition, 32))
	case "state":
		s.State = stateNamed(r.string(fieldState))
	case "reason":
		s.Reason = Reason(r.text(fieldReason))
	case "waiting_for":
		s.WaitingFor = WaitingFor(r.text(fieldWaitingFor))
	case "at":
		s.At = r.time(fieldAt)
	default:
		r.detail(s, key)
	}
}

// detail reads what statuses have only at some times.
func (r *jsonReader) detail(s *JobStatus, key []byte) {
	switch string(key) {
	case "explanation":
		s.Explanation = r.text(fieldExplanation)
	case "identity":
		s.Identity = r.text(fieldIdentity)
	case "resource":
		s.Resource = r.text(fieldResource)
	case "answer":
		s.Answer = r.text(fieldAnswer)
	case "reader":
		s.Reader = r.text(fieldReader)
	case "executor":
		s.Executor = r.text(fieldExecutor)
	case "elevated_to":
		s.ElevatedTo = r.text(fieldElevatedTo)
	case "exit_code":
		s.ExitCode = new(int(r.signed(fieldExitCode)))
	case "bytes":
		s.Bytes = r.signed(fieldBytes)
	case "seconds":
		s.Seconds = r.decimal(fieldSeconds)
	case "retry_at":
		s.RetryAt = new(r.time(fieldRetryAt))
	case "accesses":
		s.Accesses = r.accesses()
	default:
		r.failed = true
	}
}

func (r *jsonReader) accesses() []Access {
	r.once(fieldAccesses)
	list, all := jsonReader{rest: r.rest, failed: r.failed}, []Access{}
	for list.next('[', ']') {
		one, a := jsonReader{rest: list.rest}, Access{}
		for one.next('{', '}') {
			one.access(&a, one.key())
		}
		const required = fieldResource | fieldIdentity | fieldWhen | fieldAt
		all, list.rest, list.failed = append(all, a), one.rest, one.failed || one.seen&required != required
	}
	r.rest, r.failed = list.rest, list.failed
	return all
}

func (r *jsonReader) access(a *Access, key []byte) {
	switch string(key) {
	case "resource":
		a.Resource = r.text(fieldResource)
	case "identity":
		a.Identity = r.text(fieldIdentity)
	case "account":
		a.Account = r.text(fieldAccount)
	case "user":
		a.User = r.text(fieldUser)
	case "version":
		a.Version = int(r.signed(fieldVersion))
	case "when":
		a.When = r.text(fieldWhen)
	case "reason":
		a.Reason = Reason(r.text(fieldReason))
	case "answer":
		a.Answer = r.text(fieldAnswer)
	case "at":
		a.At = r.time(fieldAt)
	default:
		r.failed = true
	}
}

// next says whether another member or element follows, and takes what stands before it or the end.
func (r *jsonReader) next(begin, end byte) bool {
	switch {
	case r.failed:
		return false
	case !r.begun:
		r.begun = true
		if !r.byte(begin) {
			return false
		}
		if len(r.rest) > 0 && r.rest[0] == end {
			r.rest = r.rest[1:]
			return false
		}
		return true
	case len(r.rest) > 0 && r.rest[0] == end:
		r.rest = r.rest[1:]
		return false
	}
	return r.byte(',')
}

func (r *jsonReader) byte(c byte) bool {
	if r.failed || len(r.rest) == 0 || r.rest[0] != c {
		r.failed = true
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// once takes note of a field: a reader that meets it twice is not the one to say which counts.
func (r *jsonReader) once(field uint64) {
	r.failed = r.failed || r.seen&field != 0
	r.seen |= field
}

// key reads a member's name up to its value. One that needs an escape is none of ours.
func (r *jsonReader) key() []byte {
	if !r.byte('"') {
		return nil
	}
	end := bytes.IndexByte(r.rest, '"')
	if end < 0 {
		r.failed = true
		return nil
	}
	name := r.rest[:end]
	r.rest = r.rest[end+1:]
	r.byte(':')
	return name
}

// complete says that nothing failed or follows, and that the required fields were there.
func (r *jsonReader) complete(required uint64) bool {
	return !r.failed && len(r.rest) == 0 && r.seen&required == required
}

func (r *jsonReader) bool(field uint64) bool {
	r.once(field)
	if rest, yes := bytes.CutPrefix(r.rest, []byte("true")); yes {
		r.rest = rest
		return true
	}
	rest, no := bytes.CutPrefix(r.rest, []byte("false"))
	r.rest, r.failed = rest, r.failed || !no
	return false
}

func (r *jsonReader) text(field uint64) string { return string(r.string(field)) }

// string is valid until the next read.
func (r *jsonReader) string(field uint64) []byte {
	r.once(field)
	if !r.byte('"') {
		return nil
	}
	for i, c := range r.rest {
		switch {
		case c == '"':
			value := r.rest[:i]
			r.rest = r.rest[i+1:]
			return value
		case c == '\\' || c < ' ' || c >= utf8.RuneSelf:
			return r.unusual(i)
		}
	}
	r.failed = true
	return nil
}

// unusual reads a string that has escapes, or characters beyond ASCII, from its i-th byte on.
func (r *jsonReader) unusual(i int) []byte {
	escaped := false
	for ; i < len(r.rest) && r.rest[i] != '"'; i++ {
		if r.rest[i] == '\\' {
			escaped = true
			i++
		}
	}
	if i >= len(r.rest) {
		r.failed = true
		return nil
	}
	value := r.rest[:i]
	r.rest = r.rest[i+1:]
	if !escaped && utf8.Valid(value) && bytes.IndexFunc(value, func(c rune) bool { return c < ' ' }) < 0 {
		return value
	}
	var text string
	if err := json.Unmarshal(append(append([]byte{'"'}, value...), '"'), &text); err != nil {
		r.failed = true
		return nil
	}
	return []byte(text)
}

// digits takes a number's characters off: a whole number of at most 18 digits, which every type of 64 bits holds.
func (r *jsonReader) digits() []byte {
	i := 0
	for i < len(r.rest) && r.rest[i] >= '0' && r.rest[i] <= '9' {
		i++
	}
	digits := r.rest[:i]
	r.failed = r.failed || i == 0 || i > 18 || digits[0] == '0' && i > 1
	r.rest = r.rest[i:]
	return digits
}

func (r *jsonReader) unsigned(field uint64, bits uint) (n uint64) {
	r.once(field)
	for _, c := range r.digits() {
		n = 10*n + uint64(c-'0')
	}
	r.failed = r.failed || n>>(bits-1)>>1 != 0
	return n
}

func (r *jsonReader) signed(field uint64) int64 {
	if len(r.rest) > 1 && r.rest[0] == '-' && r.rest[1] != '0' {
		r.rest = r.rest[1:]
		return -int64(r.unsigned(field, 63))
	}
	return int64(r.unsigned(field, 63))
}

// decimal reads a number without an exponent.
func (r *jsonReader) decimal(field uint64) float64 {
	r.once(field)
	from := r.rest
	if len(r.rest) > 0 && r.rest[0] == '-' {
		r.rest = r.rest[1:]
	}
	r.digits()
	if len(r.rest) > 0 && r.rest[0] == '.' {
		i := 1
		for i < len(r.rest) && r.rest[i] >= '0' && r.rest[i] <= '9' {
			i++
		}
		r.failed = r.failed || i == 1
		r.rest = r.rest[i:]
	}
	if r.failed {
		return 0
	}
	n, err := strconv.ParseFloat(string(from[:len(from)-len(r.rest)]), 64)
	r.failed = err != nil
	return n
}

// time reads one of UTC.
func (r *jsonReader) time(field uint64) (t time.Time) {
	text := r.string(field)
	if r.failed || len(text) < len("2006-01-02T15:04:05Z") || text[10] != 'T' || text[len(text)-1] != 'Z' || t.UnmarshalText(text) != nil {
		r.failed = true
		return time.Time{}
	}
	return t
}

// stateNamed gives the states that are known without an allocation.
func stateNamed(name []byte) State {
	switch State(name) {
	case Accepted:
		return Accepted
	case Waiting:
		return Waiting
	case Downloading:
		return Downloading
	case Downloaded:
		return Downloaded
	case Running:
		return Running
	case Succeeded:
		return Succeeded
	case Failed:
		return Failed
	case Retrying:
		return Retrying
	}
	return State(name)
}
