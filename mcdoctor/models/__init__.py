"""The words of mcdoctor as types: plain, frozen, standard library only, no I/O."""
