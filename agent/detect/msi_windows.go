package detect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/windows/registry"
)

// registeredProducts reads the registrations of a packed product code, for the
// machine and for every user. Both 32-bit and 64-bit products are in the 64-bit view.
func registeredProducts(packed string) ([]product, error) {
	owners, err := registry.OpenKey(registry.LOCAL_MACHINE, productsPath, registry.ENUMERATE_SUB_KEYS|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return nil, nil // nothing was ever installed
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", productsPath, err)
	}
	defer owners.Close()
	sids, err := owners.ReadSubKeyNames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", productsPath, err)
	}
	var found []product
	for _, sid := range sids {
		path := productsPath + `\` + sid + `\Products\` + packed + `\InstallProperties`
		key, err := registry.OpenKey(registry.LOCAL_MACHINE, path, registry.QUERY_VALUE|registry.WOW64_64KEY)
		if errors.Is(err, registry.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		version, _, err := key.GetStringValue("DisplayVersion")
		key.Close()
		if err != nil && !errors.Is(err, registry.ErrNotExist) {
			return nil, fmt.Errorf("read version of %s: %w", path, err)
		}
		found = append(found, product{sid: sid, version: version})
	}
	return found, nil
}
