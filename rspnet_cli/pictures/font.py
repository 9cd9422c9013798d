"""A font of our own, 5 x 9 pixels a letter, so that pictures can say what they show without a font file or a library."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

LINE = 9
"""Pixels of a line: seven above the base line, two below it."""
ADVANCE = 6
"""Pixels from one letter to the next."""
_UNKNOWN = "\ufffd"

# Blocks of letters: a line that names them, LINE lines that draw them.
_ART = """\
A     B     C     D     E     F     G     H     I     J     K     L     M     N     O     P     Q     R     S     T     U     V
  #   ####   ###  ###   ##### #####  ###  #   #  ###    ### #   # #     #   # #   #  ###  ####   ###  ####   #### ##### #   # #   #
 # #  #   # #   # #  #  #     #     #   # #   #   #      #  #  #  #     ## ## ##  # #   # #   # #   # #   # #       #   #   # #   #
#   # #   # #     #   # #     #     #     #   #   #      #  # #   #     # # # ##  # #   # #   # #   # #   # #       #   #   # #   #
#   # ####  #     #   # ####  ####  # ### #####   #      #  ##    #     # # # # # # #   # ####  #   # ####   ###    #   #   # #   #
##### #   # #     #   # #     #     #   # #   #   #      #  # #   #     #   # #  ## #   # #     # # # # #       #   #   #   #  # #
#   # #   # #   # #  #  #     #     #   # #   #   #   #  #  #  #  #     #   # #  ## #   # #     #  #  #  #      #   #   #   #  # #
#   # ####   ###  ###   ##### #      #### #   #  ###   ##   #   # ##### #   # #   #  ###  #      ## # #   # ####    #    ###    #


W     X     Y     Z     a     b     c     d     e     f     g     h     i     j     k     l     m     n     o     p     q     r
#   # #   # #   # #####       #               #         ##        #       #      #  #      ##
#   # #   # #   #     #       #               #        #          #                 #       #
#   #  # #   # #     #   ###  ####   ###   ####  ###  ####   #### ####   ##     ##  #  #    #   ## #  ####   ###  ####   #### # ##
# # #   #     #     #       # #   # #     #   # #   #  #    #   # #   #   #      #  # #     #   # # # #   # #   # #   # #   # ##  #
# # #  # #    #    #     #### #   # #     #   # #####  #    #   # #   #   #      #  ##      #   # # # #   # #   # #   # #   # #
## ## #   #   #   #     #   # #   # #     #   # #      #    #   # #   #   #      #  # #     #   # # # #   # #   # #   # #   # #
#   # #   #   #   #####  #### ####   ###   ####  ###   #     #### #   #  ###     #  #  #   ###  # # # #   #  ###  ####   #### #
                                                                #                #                                #         #
                                                             ###               ##                                 #         #
s     t     u     v     w     x     y     z     0     1     2     3     4     5     6     7     8     9     .     ,     :     ;
       #                                         ###    #    ###  ####     #  #####   ##  #####  ###   ###
       #                                        #   #  ##   #   #     #   ##  #      #        # #   # #   #
 #### ####  #   # #   # #   # #   # #   # ##### #  ##   #       #     #  # #  ####  #        #  #   # #   #              ##    ##
#      #    #   # #   # # # #  # #  #   #    #  # # #   #     ##   ###  #  #      # ####     #   ###   ####              ##    ##
 ###   #    #   # #   # # # #   #   #   #   #   ##  #   #    #        # #####     # #   #   #   #   #     #
    #  #    #   #  # #  # # #  # #  #   #  #    #   #   #   #         #    #  #   # #   #   #   #   #    #   ##    ##    ##    ##
####    ##   ####   #    # #  #   #  #### #####  ###   ###  ##### ####     #   ###   ###    #    ###   ##    ##    ##    ##     #
                                        #                                                                           #          #
                                     ###                                                                           #
_     -     +     =     /     (     )     %     '     <     >     *     #     ~     &     @     !     ?     [     ]     |     \ufffd
                            #    #   #    ##  #   #                      # #         ##    ###    #    ###   ###   ###    #   #####
              #            #    #     #   ##  #   #      #   #    # # #  # #        #  #  #   #   #   #   #  #       #    #   #   #
              #   #####    #   #       #     #          #     #    ###  #####       # #   # ###   #       #  #       #    #   #   #
      ##### #####         #    #       #    #          #       #  #####  # #   ## #  #    # # #   #     ##   #       #    #   #   #
              #   #####  #     #       #   #            #     #    ###  ##### #  #  # # # # ###   #     #    #       #    #   #   #
              #          #      #     #   #  ##          #   #    # # #  # #        #  #  #                  #       #    #   #   #
                        #        #   #    #  ##                          # #         ## #  ###    #     #    ###   ###    #   #####
#####                                                                                                                     #
                                                                                                                          #
"""


@cache
def _letters() -> dict[str, npt.NDArray[np.bool_]]:
    """Letter -> (LINE, ADVANCE) bool."""
    lines = _ART.splitlines()
    letters = {" ": np.zeros((LINE, ADVANCE), bool)}
    for top in range(0, len(lines), 1 + LINE):
        names = lines[top][::ADVANCE]
        rows = [line.ljust(ADVANCE * len(names)) for line in lines[top + 1 : top + 1 + LINE]]
        drawn = np.array([[pixel == "#" for pixel in row] for row in rows])
        letters |= {name: drawn[:, ADVANCE * place : ADVANCE * (place + 1)] for place, name in enumerate(names)}
    return letters


def text_mask(text: str, scale: int = 1) -> npt.NDArray[np.bool_]:
    """Where a line of text is drawn: (LINE * scale, ADVANCE * scale * len(text)) bool. Letters that the font lacks are boxes."""
    letters = _letters()
    line = np.concatenate([letters[" "][:, :0], *(letters.get(letter, letters[_UNKNOWN]) for letter in text)], axis=1)
    return line.repeat(scale, axis=0).repeat(scale, axis=1)
