# SPDX-License-Identifier: GPL-2.0-or-later
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in (os.path.join(os.path.dirname(HERE), "servers"), HERE):
    sys.path.insert(0, folder)
