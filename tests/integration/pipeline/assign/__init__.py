"""Who gets work, where rounds overlap and strangers crowd in."""
