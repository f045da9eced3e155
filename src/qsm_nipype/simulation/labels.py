"""Labels of the digital heads.

1 to 16 are those of the QSM-CI head phantom [Marques2021]_, so that its region metrics apply; the
rest of the head and the pathologies come above.
"""

from __future__ import annotations

AIR = 0
CAUDATE, PALLIDUM, PUTAMEN, RED_NUCLEUS, DENTATE, SUBSTANTIA_NIGRA, THALAMUS = range(1, 8)
WHITE_MATTER, GREY_MATTER, CSF, VEIN = 8, 9, 10, 11
BONE, SINUS_AIR, MUSCLE, CALCIFICATION = 13, 14, 15, 16
HAEMORRHAGE, MICROBLEED, LESION, LESION_RIM, CHOROID_PLEXUS = 17, 18, 19, 20, 21
MARROW, FAT, SKIN, VITREOUS, LENS, DURA, ARTERY = 30, 31, 32, 33, 34, 35, 36

#: label → (abbreviation, name)
LABELS: dict[int, tuple[str, str]] = {
    AIR: ("BG", "air around the head"),
    CAUDATE: ("CN", "caudate nucleus"),
    PALLIDUM: ("GP", "globus pallidus"),
    PUTAMEN: ("PU", "putamen"),
    RED_NUCLEUS: ("RN", "red nucleus"),
    DENTATE: ("DN", "dentate nucleus"),
    SUBSTANTIA_NIGRA: ("SN", "substantia nigra"),
    THALAMUS: ("TH", "thalamus"),
    WHITE_MATTER: ("WM", "white matter"),
    GREY_MATTER: ("GM", "grey matter"),
    CSF: ("CSF", "cerebrospinal fluid"),
    VEIN: ("VN", "veins and dural sinuses"),
    CALCIFICATION: ("CA", "calcification"),
    HAEMORRHAGE: ("HM", "haemorrhage"),
    MICROBLEED: ("MB", "microbleed"),
    LESION: ("WML", "white-matter lesion"),
    LESION_RIM: ("PRL", "paramagnetic rim of a white-matter lesion"),
    CHOROID_PLEXUS: ("CP", "choroid plexus"),
    SINUS_AIR: ("AIR", "air inside the head"),
    BONE: ("BO", "cortical bone"),
    MARROW: ("BM", "bone marrow"),
    MUSCLE: ("MU", "muscle and other soft tissue"),
    FAT: ("FA", "fat"),
    SKIN: ("SK", "skin"),
    VITREOUS: ("VI", "vitreous body of the eye"),
    LENS: ("LE", "lens of the eye"),
    DURA: ("DM", "dura mater"),
    ARTERY: ("AR", "large artery"),
}

#: labels where air is: no signal, strongly paramagnetic against tissue
AIR_LABELS = (AIR, SINUS_AIR)
#: nuclei whose mean susceptibility is measured
NUCLEI = (CAUDATE, PALLIDUM, PUTAMEN, RED_NUCLEUS, DENTATE, SUBSTANTIA_NIGRA, THALAMUS)
