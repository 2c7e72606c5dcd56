"""The checks that ship with mcdoctor, a room a layer."""
