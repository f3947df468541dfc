package msi

import (
	"errors"
	"fmt"
	"io"
	"regexp"
)

const (
	maxFile         = 4 << 30  // bytes; Windows Installer itself stops at 2 GiB
	maxStringPool   = 16 << 20 // bytes, four for each string
	maxStringData   = 64 << 20 // bytes
	maxPropertyRows = 1 << 16
	maxPropertyText = 16 << 20 // bytes of all names and values, decoded
)

var guid = regexp.MustCompile(`^\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}$`)

// Info is what a package says of itself.
type Info struct {
	ProductCode    string // a GUID in braces, always set; the name of exactly this version
	UpgradeCode    string // a GUID in braces, shared by the versions of a product; "" if the package has none
	ProductName    string
	ProductVersion string
	Manufacturer   string

	// AllUsers and MSIInstallPerUser are the properties ALLUSERS and MSIINSTALLPERUSER as authored; nil when the package does
	// not set them. Windows Installer takes an empty ALLUSERS as not set.
	AllUsers          *string
	MSIInstallPerUser *string

	// Platform is the processor type of the template summary, as authored: "Intel", "x64", "Arm64", "Intel64"; "Intel" when the
	// template leaves it out, as Windows Installer has it.
	Platform string

	// Properties is the whole Property table.
	Properties map[string]string
}

// Read reads the installation package of size bytes in r. Patches, transforms, merge modules and other files are errors.
// An error of r itself is wrapped.
func Read(r io.ReaderAt, size int64) (Info, error) {
	file, err := openCompound(r, size)
	if err != nil {
		return Info{}, fmt.Errorf("open installer database: %w", err)
	}
	properties, err := readProperties(file)
	if err != nil {
		return Info{}, fmt.Errorf("read properties: %w", err)
	}
	platform, err := readPlatform(file)
	if err != nil {
		return Info{}, fmt.Errorf("read summary information: %w", err)
	}
	info := Info{
		ProductCode:       properties["ProductCode"],
		UpgradeCode:       properties["UpgradeCode"],
		ProductName:       properties["ProductName"],
		ProductVersion:    properties["ProductVersion"],
		Manufacturer:      properties["Manufacturer"],
		AllUsers:          authored(properties, "ALLUSERS"),
		MSIInstallPerUser: authored(properties, "MSIINSTALLPERUSER"),
		Platform:          platform,
		Properties:        properties,
	}
	if !guid.MatchString(info.ProductCode) {
		return Info{}, fmt.Errorf("not an installation package: ProductCode is %.64q, not a GUID in braces", info.ProductCode)
	}
	if info.UpgradeCode != "" && !guid.MatchString(info.UpgradeCode) {
		return Info{}, fmt.Errorf("UpgradeCode is %.64q, not a GUID in braces", info.UpgradeCode)
	}
	return info, nil
}

func authored(properties map[string]string, name string) *string {
	if value, ok := properties[name]; ok {
		return &value
	}
	return nil
}

// readProperties decodes the Property table: two columns of string references, the first column of every row before the
// second of any.
func readProperties(file *compound) (map[string]string, error) {
	pool, err := readStringPool(file)
	if err != nil {
		return nil, err
	}
	table, err := file.table("Property", int64(maxPropertyRows*2*pool.refSize))
	if err != nil {
		return nil, err
	}
	if len(table)%(2*pool.refSize) != 0 {
		return nil, fmt.Errorf("%d bytes are no whole number of rows", len(table))
	}
	names, values := table[:len(table)/2], table[len(table)/2:]
	properties := make(map[string]string, len(names)/pool.refSize)
	text := 0
	for ; len(names) > 0; names, values = names[pool.refSize:], values[pool.refSize:] {
		name, err := pool.text(names)
		if err != nil {
			return nil, err
		}
		value, err := pool.text(values)
		if err != nil {
			return nil, fmt.Errorf("value of %.64q: %w", name, err)
		}
		if name == "" {
			return nil, errors.New("a row has no name")
		}
		if _, twice := properties[name]; twice {
			return nil, fmt.Errorf("%.64q is there twice", name)
		}
		// Many rows may refer to one long string, so that the size of the file does not bound this.
		if text += len(name) + len(value); text > maxPropertyText {
			return nil, fmt.Errorf("more than %d bytes of text", maxPropertyText)
		}
		properties[name] = value
	}
	return properties, nil
}
