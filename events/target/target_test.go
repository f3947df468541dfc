package target

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"chandler/events"
)

var linux = events.Facts{ID: "agent1234", Hostname: "ws1", OS: "linux", OSVersion: "12.7", Arch: "amd64", Tags: []string{"office"}, Addresses: []string{"192.0.2.1"}, ClientKind: events.Advanced, MemoryBytes: 8 << 30}

func TestExpressionsDecideByFacts(t *testing.T) {
	for name, c := range map[string]struct {
		expression string
		want       bool
	}{
		"an equal fact matches":                 {`agent.os == "linux"`, true},
		"another fact does not":                 {`agent.os == "windows"`, false},
		"a tag is found in the list":            {`"office" in agent.tags`, true},
		"an absent tag is not":                  {`"server" in agent.tags`, false},
		"numbers compare":                       {`agent.memory_bytes >= 4 * 1024 * 1024 * 1024`, true},
		"a string function works":               {`agent.hostname.startsWith("ws")`, true},
		"a macro over a list works":             {`agent.addresses.exists(a, a.startsWith("192.0.2."))`, true},
		"the client kind compares as a string":  {`agent.client_kind == "advanced"`, true},
		"true is everybody":                     {`true`, true},
		"a fact that was never set is its zero": {`agent.site == ""`, true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Compile(c.expression)
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.Eval(linux)
			if err != nil || got != c.want {
				t.Fatalf("%s: got %v, %v; want %v", c.expression, got, err, c.want)
			}
		})
	}
}

func TestBadExpressionsAreRefusedWithTheirPosition(t *testing.T) {
	for name, c := range map[string]struct{ expression, want string }{
		"a syntax error names its place":    {"agent.os == \"linux\" &&\n && true", "2:2"},
		"an unknown fact names its place":   {`agent.oss == "linux"`, "1:6"},
		"an unknown variable is refused":    {`machine.os == "linux"`, "1:1"},
		"a type mismatch is refused":        {`agent.os == 3`, "1:10"},
		"a string is not a decision":        {`agent.os`, "not true or false"},
		"nothing is not an expression":      {"  ", "empty"},
		"a very long expression is refused": {strings.Repeat(" ", MaxExpression) + "true", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.expression)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestAMistakeIsToldOnceAndWithWhatWasProbablyMeant(t *testing.T) {
	for name, c := range map[string]struct{ expression, mistake, hint string }{
		"a fact that there is not":  {`agent.sit == "oslo"`, "undefined field 'sit'", "addresses, arch, boot_id"},
		"a single equality sign":    {`agent.os = "linux"`, "token recognition error", "two signs: =="},
		"a fact without its prefix": {`os == "linux"`, "undeclared reference to 'os'", `agent.os == "linux"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Compile(c.expression)
			if err == nil || strings.Count(err.Error(), c.mistake) != 1 || !strings.Contains(err.Error(), c.hint) {
				t.Fatalf("got %v, want %q once and %q", err, c.mistake, c.hint)
			}
		})
	}
}

func TestExplainNamesTheClauseAndTheFact(t *testing.T) {
	e, err := Compile(`"office" in agent.tags && agent.os == "windows" && agent.os_name == "x"`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := e.Explain(linux), `agent.os == "windows" is false: agent.os is "linux"`; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestExclusionWinsOverInclusion(t *testing.T) {
	for name, c := range map[string]struct {
		expression       string
		include, exclude []string
		want             bool
	}{
		"an included agent is meant whatever its facts": {`agent.os == "windows"`, []string{linux.ID}, nil, true},
		"an excluded agent is never meant":              {`true`, []string{linux.ID}, []string{linux.ID}, false},
		"without expression only the included":          {"", []string{"agent9999"}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := New(c.expression, c.include, c.exclude)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := target.Matches(linux); got != c.want || err != nil {
				t.Fatalf("got %v, %v; want %v (%s)", got, err, c.want, target.Explain(linux))
			}
		})
	}
}

func TestAnEndlessExpressionIsCutOff(t *testing.T) {
	many := linux
	for range 200 {
		many.Tags = append(many.Tags, "x")
	}
	e, err := Compile(`agent.tags.all(a, agent.tags.all(b, agent.tags.all(c, a + b + c != "")))`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Eval(many); err == nil {
		t.Fatal("an expression of eight million steps was evaluated to its end")
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`agent.os == "linux"`, `"a" in agent.tags && !(agent.arch != "arm64")`, "(((", "agent.tags.map(x, x+x)[0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		e, err := Compile(source)
		if err != nil {
			return
		}
		_, _ = e.Eval(linux)
		_ = e.Explain(linux)
	})
}

func BenchmarkEval(b *testing.B) {
	for name, source := range map[string]string{
		"comparisons": `agent.os == "linux" && "office" in agent.tags`,
		"a loop":      `agent.os == "linux" && agent.tags.exists(t, t.startsWith("off"))`,
	} {
		b.Run(name, func(b *testing.B) {
			e, err := Compile(source)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, _ := e.Eval(linux); !ok {
					b.Fatal("not matched")
				}
			}
		})
	}
}

func TestEveryFactIsReadAsItIs(t *testing.T) {
	known := linux
	known.Addresses, known.Incomplete = []string{"192.0.2.1"}, []string{"zone"}
	known.MemoryBytes, known.OfferFormat, known.Trust, known.Privileged = 7, 3, 5, true
	value := reflect.ValueOf(known)
	for i := range factsType.NumField() {
		name := factName(i)
		literal, err := json.Marshal(value.Field(i).Interface())
		if err != nil {
			t.Fatal(err)
		}
		e, err := Compile("agent." + name + " == " + string(literal))
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := e.Eval(known); !ok || err != nil {
			t.Errorf("agent.%s is not %s: %v", name, literal, err)
		}
		if factGetter(name) == nil {
			t.Errorf("fact %s is read by reflection", name)
		}
	}
}

func TestOnlyWhatCannotGrowIsEvaluatedWithoutCounting(t *testing.T) {
	env, err := environment()
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]bool{
		`agent.os == "linux" && !("a" in agent.tags) || agent.memory_bytes > 3`:           true,
		`agent.hostname.startsWith("a") ? agent.os in ["a", "b"] : size(agent.tags) == 2`: true,
		`agent.tags[0] == "a"`:                                  true,
		`agent.tags.exists(t, t == "a")`:                        false,
		`agent.hostname + agent.hostname == "aa"`:               false,
		`agent.hostname.matches("^(a+)+$")`:                     false,
		`agent.hostname.replace("a", "bb") == ""`:               false,
		`agent.os == "linux" && [agent.os + "x"][0] == "x"`:     false,
		`agent.os == "linux" && agent.tags.all(t, t != "room")`: false,
	} {
		checked, issues := env.Compile(source)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		if got := comparesOnly(checked.NativeRep().Expr()); got != want {
			t.Errorf("%s: %v", source, got)
		}
	}
}

func TestAFreezeHoldsWhomItMeans(t *testing.T) {
	facts := events.Facts{ID: "agent0001", Site: "oslo", OS: "linux"}
	collection := func(expression string, exclude ...string) events.Freeze {
		return events.Freeze{Scope: "collection", Collection: &events.Collection{Expression: expression, Exclude: exclude}}
	}
	for name, c := range map[string]struct {
		freeze events.Freeze
		want   bool
	}{
		"the fleet is everybody":                      {events.Freeze{Scope: "fleet"}, true},
		"its own site":                                {events.Freeze{Scope: "site", Name: "oslo"}, true},
		"another site":                                {events.Freeze{Scope: "site", Name: "bergen"}, false},
		"a collection it is in":                       {collection(`agent.os == "linux"`), true},
		"a collection it is not in":                   {collection(`agent.os == "windows"`), false},
		"a collection that excludes it":               {collection("true", "agent0001"), false},
		"a collection that cannot be evaluated holds": {collection(`agent.tags[3] == "x"`), true},
		"a collection that cannot be compiled holds":  {collection(`agent.nonsense`), true},
		"a freeze without its collection holds":       {events.Freeze{Scope: "collection", Name: "x"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Holds(c.freeze, facts); got != c.want {
				t.Fatalf("got %v, want %v", got, c.want)
			}
		})
	}
}
