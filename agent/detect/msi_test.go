package detect

import (
	"runtime"
	"testing"

	"chandler/events"
)

const someCode = "{12345678-9ABC-DEF0-1234-56789ABCDEF0}"

func TestRegisteredProductsAreJudged(t *testing.T) {
	machine := product{sid: systemSID, version: "2.10.0"}
	user := product{sid: "S-1-5-21-1-2-3-1001", version: "3.0.0"}
	tests := []struct {
		name        string
		version     string
		products    []product
		state       State
		explanation string
	}{
		{"a product nobody has is not installed", "", nil, NotInstalled, "not installed"},
		{"a product of the machine is installed", "", []product{user, machine}, Installed, "2.10.0"},
		{"its version must be met", ">= 2.9", []product{machine}, Installed, "2.10.0"},
		{"another version is not the product asked for", ">= 3", []product{user, machine}, NotInstalled, "not >= 3"},
		{"a product of a user alone is unknown and says whose", "", []product{user}, Unknown, user.sid},
		{"a registration without a version cannot be compared", ">= 3", []product{{sid: systemSID}}, Unknown, "version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want(t, judgeProducts(events.Detect{MSI: someCode, Version: tt.version}, tt.products), tt.state, tt.explanation)
		})
	}
}

func TestMSI(t *testing.T) {
	want(t, MSI{}.Detect(t.Context(), events.Detect{MSI: `..\..\x`}), Unknown, "not a product code")
	if runtime.GOOS == "windows" {
		want(t, MSI{}.Detect(t.Context(), events.Detect{MSI: someCode}), NotInstalled, "not installed")
	} else {
		want(t, MSI{}.Detect(t.Context(), events.Detect{MSI: someCode}), Unknown, "no Windows Installer")
	}
}
